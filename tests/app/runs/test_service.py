"""Runs as people start, watch and stop them, on SQLite and on PostgreSQL."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from app.registry.base_models import service as base_models
from app.registry.base_models.speeds import record_speed, trained_layers
from app.registry.datasets import service as datasets
from app.registry.datasets.new_images import NewImage
from app.registry.db import WAKEUPS, Database
from app.registry.errors import Conflict, InvalidInput, NotReady
from app.registry.job_kinds.kinds import SweepArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import needs, own_presets, progress, requests, service
from app.registry.runs.checkpoints import list_sample_page
from app.registry.runs.progress import run_metrics
from app.registry.runs.requests import RunRequest, StartCheckpoint
from app.registry.runs.service import active_runs, runs_ahead
from app.registry.tables.added_models import BaseModel, BaseSpeed
from app.registry.tables.runs import Checkpoint, MetricChunk, Run
from tests.claims import claim
from tests.conftest import embedded_info, make_base_ready
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset

LEASE = 10.0


def dataset(database: Database, *, pictures: int = 1, trigger: str | None = "chalk") -> int:
    with database.write() as session:
        row = datasets.create_dataset(session, "Chalk", trigger_word=trigger)
        datasets.add_images(
            session,
            row.key,
            [
                NewImage(f"{n}.png", f"{n:064x}", f"{n:064x}", f"{n:064x}", 64, 64, 9, "a fox")
                for n in range(pictures)
            ],
        )
    return row.key


def start(database: Database, **wishes: Any) -> Run:
    key = wishes.pop("dataset_id", None) or dataset(database)
    with database.write() as session:
        return requests.create_run(session, RunRequest(dataset_id=key, **wishes))


def refusal(database: Database, **wishes: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refused:
        start(database, **wishes)
    return refused.value.fields


def test_a_run_pins_the_dataset_and_the_whole_config(database: Database, ready_base: None) -> None:
    run = start(database, preset=Preset.QUICK, config={"rank": 4})
    config = TrainConfig.model_validate(run.config)
    assert (run.status, run.name, run.total_steps) == ("queued", "Chalk", config.steps)
    assert config.rank == 4
    assert "chalk" in config.sample_prompts[0]


def test_a_queued_run_wakes_the_train_workers_once_it_is_committed(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(sqlite_database, "_send_wakeup", sent.append)
    with sqlite_database.write() as session:
        jobs.enqueue_io(session, SweepArgs())
        assert session.info[WAKEUPS] == {"io"}
        assert sent == []
    assert sent == ["io"]


def test_an_empty_dataset_cannot_be_trained(database: Database, ready_base: None) -> None:
    fields = refusal(database, dataset_id=dataset(database, pictures=0))
    assert fields == {"dataset_id": "“Chalk” has no images yet. Add some, then train."}


def test_every_wrong_field_is_named_at_once(database: Database, ready_base: None) -> None:
    fields = refusal(
        database,
        name="x" * 200,
        config={"rank": 0, "steps": "many", "color": 1, "learning_rate": 1e-3},
    )
    assert set(fields) == {"name", "rank", "steps", "color"}
    assert fields["color"] == "There is no setting with this name."


def test_a_sample_that_is_too_large_for_its_base_is_refused(
    database: Database, ready_base: None
) -> None:
    side = 4 * embedded_info().resolution
    large, fits = "castle --w 2048 --h 2048", f"castle --w {side} --h {side}"
    fields = refusal(database, config={"sample_prompts": [fits, large]})
    assert fields["sample_prompts"].startswith("“castle”: 2048 × 2048 is too large for “starter”")
    assert f"at most {side} × {side}" in fields["sample_prompts"]
    start(database, config={"sample_prompts": [fits]})


def test_a_base_that_is_not_there_is_named_with_those_that_are(
    database: Database, ready_base: None
) -> None:
    fields = refusal(database, base_model="sd-9")
    assert fields == {"base_model": "Unknown base model “sd-9”. Choose one of: starter."}


def test_a_base_whose_files_are_gone_is_refused(
    database: Database, ready_base: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(BaseModel, "location", tmp_path / "gone")
    assert "are missing" in refusal(database)["base_model"]


def test_a_base_that_is_being_looked_at_asks_for_patience(database: Database) -> None:
    with pytest.raises(NotReady, match="being checked"):
        start(database)


def test_the_estimate_scales_the_nearest_measurement(database: Database, ready_base: None) -> None:
    config = TrainConfig(steps=100, batch_size=8, rank=16, sample_prompts=[], sample_every=0)
    with database.write() as session:
        base = base_models.find_base_model(session, "starter")
        assert needs.estimate(session, base, config).seconds is None
        speed = {"resolution": base.resolution, "seconds_per_step": 0.1, "adapter_bytes": 1_000}
        speed["layers"] = trained_layers(config)
        for batch, rank in ((4, 8), (1, 1)):
            session.add(
                BaseSpeed(
                    base_model_id=base.key,
                    batch_size=batch,
                    rank=rank,
                    trainable_parameters=500,
                    **speed,
                )
            )
        found = needs.estimate(session, base, config)
        costly = {"gradient_accumulation": 4, "gradient_checkpointing": True}
        longer = needs.estimate(session, base, config.model_copy(update=costly))
    assert found.seconds == pytest.approx(100 * 0.2 + needs.START_UP_SECONDS)
    assert longer.seconds == pytest.approx(100 * 0.2 * 4 * 1.5 + needs.START_UP_SECONDS)
    assert (found.trainable_parameters, found.adapter_bytes) == (1_000, 2_000)


@pytest.mark.parametrize(
    ("sample_every", "checkpoint_every", "rows"),
    [(0, 0, 2), (25, 0, 5), (0, 25, 5), (25, 50, 5), (20, 30, 8), (100, 100, 2)],
)
def test_the_estimate_counts_the_samples_of_checkpoints(
    sample_every: int, checkpoint_every: int, rows: int
) -> None:
    config = TrainConfig(steps=100, sample_every=sample_every, checkpoint_every=checkpoint_every)
    every = [number for number in (sample_every, checkpoint_every) if number]
    steps = {0, 100} | {step for step in range(1, 100) if any(step % each == 0 for each in every)}
    assert needs.count_sample_rows(config) == len(steps) == rows


@pytest.mark.parametrize(
    ("measured", "asked", "known"),
    [
        ({}, {"targets": "linear"}, (None, None)),
        ({}, {"kind": "loha"}, (None, None)),
        ({}, {"blocks": "mid"}, (None, None)),
        ({}, {"train_text_encoder": True}, (None, None)),
        ({"targets": "linear"}, {"targets": "linear", "rank": 16}, (1_000, 2_000)),
        ({"kind": "loha"}, {"kind": "loha"}, (500, 1_000)),
        ({"kind": "loha"}, {"kind": "loha", "rank": 16}, (1_000, None)),
    ],
)
def test_how_much_is_trained_is_known_from_the_same_layers_only(
    database: Database,
    ready_base: None,
    measured: dict[str, Any],
    asked: dict[str, Any],
    known: tuple[int | None, int | None],
) -> None:
    usual = {"batch_size": 4, "rank": 8, "train_text_encoder": False}
    with database.write() as session:
        base = base_models.find_base_model(session, "starter")
        for layers, trained in (("something else", 7), ("", 500)):
            row = BaseSpeed(
                base_model_id=base.key,
                batch_size=4,
                resolution=base.resolution,
                rank=8,
                layers=layers or trained_layers(TrainConfig(**(usual | measured))),
                seconds_per_step=0.1,
                trainable_parameters=trained,
                adapter_bytes=2 * trained,
            )
            session.add(row)
        found = needs.estimate(session, base, TrainConfig(**(usual | asked)))
    assert found.seconds is not None
    assert (found.trainable_parameters, found.adapter_bytes) == known


def test_a_measured_speed_is_of_one_batch_that_keeps_all_activations(
    database: Database, ready_base: None
) -> None:
    config = TrainConfig(batch_size=2, rank=4, gradient_accumulation=3)
    cost = {"resolution": 64, "seconds_per_step": 1.5, "trainable_parameters": 10}
    with database.write() as session:
        base = base_models.find_base_model(session, "starter")
        speed = record_speed(session, base.key, config, **cost)
    assert speed.seconds_per_step == pytest.approx(1.5 / config.step_cost)
    assert (speed.batch_size, speed.resolution, speed.rank) == (2, 64, 4)
    assert (speed.trainable_parameters, speed.adapter_bytes) == (10, 20)
    assert speed.layers == trained_layers(config)


def test_a_speed_is_the_median_of_the_last_runs_of_enough_steps(
    database: Database, ready_base: None
) -> None:
    config = TrainConfig(batch_size=2, rank=4)
    times = [(3.0, 8), (1.0, 300), (1.2, None), (9.0, 7), (40.0, 300), (1.1, 300), (1.3, 20)]
    known = []
    for seconds, steps in times:
        with database.write() as session:
            base = base_models.find_base_model(session, "starter")
            cost = {"seconds_per_step": seconds * config.step_cost, "steps": steps}
            cost |= {"resolution": 64, "trainable_parameters": 10}
            known.append(record_speed(session, base.key, config, **cost).seconds_per_step)
    assert known == pytest.approx([3.0, 1.0, 1.1, 1.1, 1.2, 1.15, 1.2])


def test_cancel_ends_a_waiting_run_at_once_and_twice_is_no_mistake(
    database: Database, ready_base: None
) -> None:
    run = start(database)
    for _ in range(2):
        with database.write() as session:
            assert service.cancel_run(session, run.key).status == "canceled"


def test_cancel_only_asks_a_run_that_trains(database: Database, ready_base: None) -> None:
    run = start(database)
    with database.write() as session:
        _, owned = claim(session, Run)
    with database.write() as session:
        canceled = service.cancel_run(session, run.key)
    assert (canceled.status, canceled.cancel_requested) == ("running", True)
    with database.write() as session:
        jobs.finish(session, Run, owned, JobStatus.SUCCEEDED)
    with pytest.raises(Conflict, match=r"has already"), database.write() as session:
        service.cancel_run(session, run.key)


def test_only_a_run_that_trains_can_stop_and_keep(database: Database, ready_base: None) -> None:
    run = start(database)
    with pytest.raises(Conflict, match="This run is waiting"), database.write() as session:
        service.request_run_action(session, run.key, "stop")
    with database.write() as session:
        claim(session, Run)
        assert service.request_run_action(session, run.key, "stop").stop_requested


def test_a_run_that_was_claimed_since_it_was_read_waits_for_none(
    database: Database, ready_base: None
) -> None:
    read_before = start(database)
    with database.write() as session:
        claim(session, Run)
        assert read_before.status == "queued"
        assert runs_ahead(session, read_before) == 0


def test_runs_wait_for_those_before_them(database: Database, ready_base: None) -> None:
    first = start(database)
    second, third = (start(database, dataset_id=first.dataset_id) for _ in range(2))
    with database.write() as session:
        claim(session, Run)
        order = [runs_ahead(session, row) for row in (second, third)]
        active = active_runs(session, limit=2)
    assert order == [1, 2]
    assert [row.key for row in active.shown] == [first.key, second.key]
    assert (active.running, active.queued, active.hidden) == (1, 2, 1)


def test_metrics_come_after_a_step_and_a_gap_is_null(database: Database, ready_base: None) -> None:
    run = start(database)
    with database.write() as session:
        for first, values in ((1, [0.5, 0.25]), (3, [float("nan"), 0.125])):
            session.add(
                MetricChunk(
                    run_id=run.key,
                    key="loss",
                    first_step=first,
                    count=2,
                    minimum=0,
                    maximum=1,
                    mean=0.5,
                    data=struct.pack("<2f", *values),
                )
            )
    with database.read() as session:
        found = run_metrics(session, run.key, after=1)
        nothing = run_metrics(session, run.key, after=4)
    assert found == {
        "last_step": 4,
        "series": {"loss": {"steps": [2, 3, 4], "values": [0.25, None, 0.125]}},
    }
    assert nothing == {"last_step": 4, "series": {}}


def test_a_silent_worker_loses_its_run(database: Database, ready_base: None) -> None:
    run = start(database)
    with database.write() as session:
        held, owned = claim(session, Run)
        was = held.lease_until
        assert jobs.release(session, Run, run.key, token=owned.token, lease_was=was)
        assert not jobs.release(session, Run, run.key, token=owned.token, lease_was=was)
        with pytest.raises(jobs.LostLease):
            jobs.renew(session, Run, owned, lease_seconds=LEASE)
    with database.read() as session:
        again = service.get_run(session, run.key)
    assert (again.status, again.attempt, again.owner_token) == ("queued", 1, None)


def trained_run(database: Database, *, step: int = 40, **config: Any) -> Run:
    """A run that has ended and left a checkpoint."""
    run = start(database, config={"steps": step, **config})
    with database.write() as session:
        session.add(Checkpoint(run_id=run.key, step=step, sha256="a" * 64, size_bytes=9))
    return run


def test_a_run_goes_on_from_the_checkpoint_of_another(database: Database, ready_base: None) -> None:
    parent = trained_run(database, rank=3, learning_rate=0.1)
    run = start(
        database,
        dataset_id=parent.dataset_id,
        config={"steps": 100},
        continues=StartCheckpoint(parent.key),
    )
    assert (run.parent_id, run.step, run.total_steps) == (parent.key, 40, 100)
    assert run.config == parent.config | {"steps": 100}
    with database.read() as session:
        (checkpoint,) = progress.checkpoints(session, run.key)
        assert (checkpoint.step, checkpoint.sha256) == (40, "a" * 64)
        (said,) = (e for e in service.run_events(session, run.key) if e.kind == "notice")
    assert said.data["text"] == f"Continues from step 40 of “Chalk” (run {parent.key})."


def test_a_run_cannot_go_on_as_something_else_or_backwards(
    database: Database, ready_base: None
) -> None:
    parent = trained_run(database)
    fields = refusal(
        database,
        dataset_id=parent.dataset_id,
        config={"steps": 40, "rank": 3, "optimizer": "adafactor"},
        continues=StartCheckpoint(parent.key, 40),
    )
    assert set(fields) == {"steps", "rank", "optimizer"}
    assert "more than 40" in fields["steps"]
    with database.write() as session:
        other = BaseModel(slug="z", name="Z", source=str(database.engine.url), family="zimage")
        other.status = "ready"
        session.add(other)
    for slug, wrong in (("starter", set()), ("z", {"base_model"}), ("nobody", {"base_model"})):
        fields = refusal(
            database,
            dataset_id=parent.dataset_id,
            base_model=slug,
            config={"steps": 40},
            continues=StartCheckpoint(parent.key),
        )
        assert set(fields) == {"steps"} | wrong
    gone = refusal(database, dataset_id=parent.dataset_id, continues=StartCheckpoint(parent.key, 7))
    assert gone == {
        "continues": "That checkpoint was deleted. This run still has checkpoints at steps: 40."
    }


def test_what_only_reads_otherwise_fits_the_checkpoint(
    database: Database, ready_base: None
) -> None:
    text = {"train_text_encoder": True}
    parent = trained_run(database, rank=4, alpha=2, blocks="mid, up.1", **text)
    said = {"blocks": "up.1,mid", "text_encoder_rank": 4, "text_encoder_alpha": 2}
    run = start(
        database,
        dataset_id=parent.dataset_id,
        config={"steps": 90} | said,
        continues=StartCheckpoint(parent.key),
    )
    assert run.parent_id == parent.key
    other = {"steps": 90, "text_encoder_alpha": 4}
    fields = refusal(
        database, dataset_id=parent.dataset_id, config=other, continues=StartCheckpoint(parent.key)
    )
    assert set(fields) == {"text_encoder_alpha"}


def test_a_blob_that_another_run_goes_on_from_is_not_given_away(
    database: Database, ready_base: None
) -> None:
    parent = trained_run(database)
    start(
        database,
        dataset_id=parent.dataset_id,
        config={"steps": 90},
        continues=StartCheckpoint(parent.key),
    )
    with database.write() as session:
        row, owned = claim(session, Run)
        unused = progress.add_checkpoint(
            session, owned, step=41, sha256="b" * 64, size_bytes=9, keep=1
        )
    assert row.key == parent.key
    assert unused == []


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("prodigy", {"learning_rate": 1.0}),
        ("adamw_schedule_free", {"lr_scheduler": "constant"}),
        ("adafactor", {}),
    ],
)
def test_defaults_follow_the_optimizer_but_not_over_what_was_asked(
    sqlite_database: Database, optimizer: str, expected: dict[str, Any]
) -> None:
    make_base_ready(sqlite_database)
    usual = start(sqlite_database).config
    followed = start(sqlite_database, config={"optimizer": optimizer}).config
    assert followed == usual | expected | {"optimizer": optimizer}
    asked = start(sqlite_database, config={"optimizer": optimizer, "learning_rate": 0.3}).config
    assert asked["learning_rate"] == 0.3


def test_a_run_that_is_evaluated_holds_images_out_unless_a_share_is_named(
    sqlite_database: Database,
) -> None:
    make_base_ready(sqlite_database)
    many = dataset(sqlite_database, pictures=24)
    with sqlite_database.write() as session:
        named = own_presets.create_preset(session, "All", Preset.QUICK, {"validation_share": 0})
        unasked = own_presets.create_preset(session, "Plain", Preset.QUICK, {"evaluate": False})

    def found(**wishes: Any) -> tuple[bool, float]:
        config = start(sqlite_database, **{"dataset_id": many} | wishes).config
        return config["evaluate"], config["validation_share"]

    assert found() == (True, 0.167)
    assert found(dataset_id=dataset(sqlite_database, pictures=15)) == (True, 0)
    assert found(config={"evaluate": False}) == (False, 0)
    assert found(config={"validation_share": 0.5}) == (True, 0.5)
    assert found(config={"validation_share": 0}) == (True, 0)
    assert found(own_preset_id=named.key) == (True, 0)
    assert found(own_preset_id=unasked.key) == (False, 0)
    assert found(own_preset_id=unasked.key, config={"evaluate": True}) == (True, 0.167)
    assert refusal(sqlite_database, config={"evaluate": "maybe"}).keys() == {"evaluate"}
    parent = trained_run(sqlite_database, rank=3, evaluate=False)
    later = StartCheckpoint(parent.key)  # what it was trained on is not held out afterwards
    assert found(continues=later, config={"steps": 99, "evaluate": True}) == (True, 0)


def test_a_trigger_word_that_no_caption_has_is_reported(
    sqlite_database: Database,
) -> None:
    make_base_ready(sqlite_database)
    silent = start(sqlite_database, dataset_id=dataset(sqlite_database, trigger="zork"))
    said = start(sqlite_database, dataset_id=dataset(sqlite_database, trigger="FOX"))
    with sqlite_database.read() as session:
        (warning,) = service.run_warnings(session, silent)
        assert service.run_warnings(session, said) == []
    assert "“zork”" in warning


def test_samples_of_a_long_run_come_in_pages_with_the_base_below_each(
    database: Database, ready_base: None
) -> None:
    run = start(database)
    with database.write() as session:
        _, owned = claim(session, Run)
        for step in range(6):
            sample = progress.NewSample(step, 0, "a", 1, "0" * 64)
            progress.add_sample(session, owned, sample)
    with database.read() as session:
        first = list_sample_page(session, run.key, size=2)
        second = list_sample_page(session, run.key, before=first.older, size=2)
        third = list_sample_page(session, run.key, before=second.older, size=2)
    steps = [[sample.step for sample in page.samples] for page in (first, second, third)]
    assert steps == [[0, 4, 5], [0, 2, 3], [0, 1]]
    assert (first.older, third.older) == (4, None)


def test_a_long_history_keeps_its_warnings(database: Database, ready_base: None) -> None:
    run = start(database)
    with database.write() as session:
        jobs.record(session, Run, run.key, "warning", text="The rate was halved.")
        for _ in range(service.EVENTS_SHOWN + 5):
            jobs.record(session, Run, run.key, "sample_requested")
        kinds = [event.kind for event in service.run_events(session, run.key)]
    assert kinds == [*["sample_requested"] * service.EVENTS_SHOWN, "warning"]


def test_a_checkpoint_takes_the_place_of_later_ones_that_the_run_could_not_resume_from(
    database: Database, ready_base: None
) -> None:
    run = start(database)
    with database.write() as session:
        _, owned = claim(session, Run)
        for step in (30, 40, 10, 20):  # both were damaged: it began again
            progress.add_checkpoint(
                session, owned, step=step, sha256=f"{step:064}", size_bytes=1, keep=2
            )
        assert [row.step for row in progress.checkpoints(session, run.key)] == [20, 10]


def test_attempts_are_counted_since_the_last_checkpoint(
    database: Database, ready_base: None
) -> None:
    run = start(database)
    for step in (10, 20, 30, 30, 30):
        with database.write() as session:
            held, owned = claim(session, Run)
            progress.add_checkpoint(
                session, owned, step=step, sha256=f"{step:064}", size_bytes=1, keep=2
            )
            assert jobs.release(
                session, Run, run.key, token=owned.token, lease_was=held.lease_until
            )
    with database.read() as session:
        ended = service.get_run(session, run.key)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "worker_lost", 3)
