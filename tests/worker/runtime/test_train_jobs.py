"""A run, from the queue to an adapter, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from safetensors import safe_open
from sqlmodel import col, select

from app.registry.adapters.service import find_file
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.jobs.owner import new_token
from app.registry.runs import checkpoints
from app.registry.runs.changing import change_settings
from app.registry.runs.progress import run_metrics
from app.registry.runs.rerun import train_again
from app.registry.tables.adapters import Adapter, AdapterAlias, AdapterVersion
from app.registry.tables.added_models import BaseSpeed
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import Event
from app.registry.tables.runs import Checkpoint, Run, Sample
from tests.images import make_png
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import CONFIG, PATIENCE_SECONDS, Registry, wait_for
from worker.core.lora_files import canonical
from worker.core.lora_files.reading import read_adapter
from worker.core.safetensors_header import tensor_hash
from worker.runtime import scratch
from worker.runtime.attempts import attempt
from worker.runtime.attempts.save_result import TrainingResult
from worker.runtime.attempts.work import TrainerTimeouts
from worker.runtime.messages import Export
from worker.runtime.train_jobs import TrainJobs
from worker.runtime.trainer_process import TrainerProcess

CRASHES = (sys.executable, "-I", "-S", "-c", "import os; os.write(2, b'out of luck'); os.abort()")
HANGS = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
SHORT = TrainerTimeouts(cancel=0.3, drain=0.3, stall=0.5)


def weights_of(registry: Registry, run_id: int) -> dict[str, bytes]:
    run = registry.row(Run, run_id)
    assert (run.status, run.error, run.error_trace) == ("succeeded", None, None)
    version = registry.row(AdapterVersion, run.adapter_version_id)
    path = registry.store.local_path(version.sha256, registry.settings.data_dir)
    modules = canonical.load_adapter(path).modules
    return {m.key: m.down.numpy().tobytes() + m.up.numpy().tobytes() for m in modules}


def trainer_of(train_jobs: TrainJobs, registry: Registry) -> list[TrainerProcess]:
    """Every trainer process the loop starts, in order."""
    started: list[TrainerProcess] = []
    start = train_jobs.trainers._start

    def remember() -> TrainerProcess:
        started.append(start())
        return started[-1]

    train_jobs.trainers._start = remember
    return started


def test_a_run_becomes_an_adapter_with_downloads(trained: TrainedRegistry, tmp_path: Path) -> None:
    registry = trained.registry
    run = registry.row(Run, trained.run_id)
    assert (run.status, run.error, run.error_trace) == ("succeeded", None, None)
    assert (run.step, run.attempt, run.phase, run.owner_token) == (8, 1, None, None)
    assert run.device == "CPU, 1 thread"
    assert run.arithmetic == {"precision": "fp32", "threads": 1}
    assert run.trainable_parameters > 0
    assert run.base_parameters > 1_000_000
    assert run.training_seconds > 0
    version = registry.row(AdapterVersion, run.adapter_version_id)
    adapter = registry.row(Adapter, version.adapter_id)
    (alias,) = [a for a in _aliases(registry) if a.adapter_id == adapter.key]
    assert (adapter.slug, adapter.name, adapter.base_family) == ("chalk-board", run.name, "sd1")
    assert (alias.alias, alias.version_id) == ("latest", version.key)
    assert (version.run_id, version.version, version.trigger_words) == (run.key, 1, ["chalk"])
    samples = registry.rows(Sample, run_id=run.key)
    assert [sample.step for sample in samples] == [0, 2, 4, 6, 8]
    assert samples[0].sha256 != samples[-1].sha256
    assert adapter.cover_sha256 == samples[-1].sha256
    for sample in samples:
        small = registry.row(Thumbnail, sample.sha256).small_sha256
        assert registry.store.stat(small).size < registry.store.stat(sample.sha256).size
    weights = canonical.load_adapter(registry.store.local_path(version.sha256, tmp_path))
    files = {file.format: file for file in trained.downloads}
    assert {(file.version_id, file.dtype) for file in trained.downloads} == {(version.key, "fp16")}
    assert set(files) == {"kohya", "peft"}
    for file in files.values():
        copy = read_adapter(registry.store.local_path(file.sha256, tmp_path))
        assert {m.key for m in copy.modules} == {m.key for m in weights.modules}
    kohya = registry.store.local_path(files["kohya"].sha256, tmp_path)
    assert version.details["tensor_sha256"] == tensor_hash(kohya)


def test_the_next_version_says_at_once_what_is_said_of_its_adapter(
    registry: Registry, tmp_path: Path
) -> None:
    with registry.database.write() as session:
        new = NewVersion(
            name="Slate", base_family="sd1", sha256="0" * 64, size_bytes=1, rank=1, alpha=1,
            trigger_words=["slate"], license="CC-BY-4.0",
        )  # fmt: skip
        key = publish(session, new).adapter_id
    run_id = registry.new_run(name="Another", steps=1, sample_prompts=[], sample_every=0)
    with registry.database.write() as session:
        session.get_one(Run, run_id).adapter_id = key
    with registry.working(registry.train_jobs()):
        run = registry.until_final(Run, run_id)
    with registry.database.read() as session:
        version = session.get_one(AdapterVersion, run.adapter_version_id)
        assert (version.adapter_id, version.version) == (key, 2)
        file = find_file(session, version.key)
    assert file is not None
    with safe_open(registry.store.local_path(file.sha256, tmp_path), framework="pt") as opened:
        said = opened.metadata()
    assert (said["modelspec.title"], said["ss_output_name"]) == ("Slate", "slate-v2")
    assert (said["modelspec.license"], said["modelspec.trigger_phrase"]) == ("CC-BY-4.0", "slate")


def _aliases(registry: Registry) -> list[AdapterAlias]:
    with registry.database.read() as session:
        return list(session.exec(select(AdapterAlias)))


def test_the_newest_checkpoints_and_every_point_of_the_chart_are_kept(
    trained: TrainedRegistry,
) -> None:
    registry = trained.registry
    checkpoints = registry.rows(Checkpoint, run_id=trained.run_id)
    assert [checkpoint.step for checkpoint in checkpoints] == [6, 8]
    stored = {blob.sha256 for blob in registry.store.list()}
    assert {checkpoint.sha256 for checkpoint in checkpoints} <= stored
    with registry.database.read() as session:
        metrics = run_metrics(session, trained.run_id)
    measured = metrics["series"].pop("fixed_loss")
    assert measured["steps"] == [0, 2, 4, 6, 8]
    assert set(metrics["series"]) == {"loss", "learning_rate"}
    for series in metrics["series"].values():
        assert series["steps"] == list(range(1, 9))
        assert all(value > 0 for value in series["values"])


def test_every_checkpoint_is_an_adapter_that_can_be_used(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry = trained.registry
    with registry.database.read() as session:
        found = checkpoints.list_checkpoints(session, trained.run_id)
    assert [row.step for row in found] == [8, 6, 4, 2]
    versions = [row.version for row in found if row.version]
    assert [version.steps for version in versions] == [8, 6, 4, 2]
    assert len({version.tensor_sha256 for version in versions}) == 4
    for version in versions:
        adapter = canonical.load_adapter(registry.store.local_path(version.sha256, tmp_path))
        assert adapter.metadata["steps"] == str(version.steps)
    made = registry.row(AdapterVersion, registry.row(Run, trained.run_id).adapter_version_id)
    assert (versions[0].sha256, versions[0].tensor_sha256) == (made.sha256, made.tensor_sha256)
    assert [row.is_in_use for row in found] == [True, False, False, False]


def test_a_run_measures_how_fast_this_machine_trains(trained: TrainedRegistry) -> None:
    speeds = trained.registry.rows(BaseSpeed, batch_size=CONFIG["batch_size"], rank=CONFIG["rank"])
    assert [speed.resolution for speed in speeds] == [CONFIG["resolution"]]
    assert speeds[0].layers == "lora attention in all"
    assert speeds[0].seconds_per_step > 0


def test_nothing_of_a_run_is_left_in_the_work_folder(trained: TrainedRegistry) -> None:
    assert trained.work_folder == []


def test_a_worker_that_starts_leaves_the_folder_of_a_run_that_begins_just_then(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = registry.settings.data_dir / "work"
    left, begun = work / "run-1-00000000", work / "run-2-11111111"
    left.mkdir(parents=True)
    remove_abandoned = scratch.remove_abandoned

    def in_a_bad_moment(folders: Sequence[Path], tokens: Sequence[str]) -> None:
        begun.mkdir()  # another worker owns a run since the tokens were read
        remove_abandoned(folders, tokens)

    monkeypatch.setattr(scratch, "remove_abandoned", in_a_bad_moment)
    train_jobs = registry.train_jobs()
    try:
        train_jobs.prepare()
        assert (left.exists(), begun.exists()) == (False, True)
    finally:
        train_jobs.close()


def test_the_folder_of_a_killed_worker_goes_before_its_run_is_taken_over(
    registry: Registry,
) -> None:
    program = "from app.registry.jobs.owner import new_token; print(new_token())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    folders = []
    for token in (ended.stdout.strip(), new_token()):
        values = {"status": "running", "owner_token": token}
        run_id = registry.new_run()
        with registry.database.write() as session:
            session.execute(sa.update(Run).where(col(Run.id) == run_id).values(**values))
        folders.append(registry.settings.data_dir / "work" / f"run-{run_id}-{token[:8]}")
        folders[-1].mkdir(parents=True)
    train_jobs = registry.train_jobs()
    try:
        train_jobs.prepare()
        assert [folder.exists() for folder in folders] == [False, True]
    finally:
        train_jobs.close()


def test_a_killed_trainer_is_replaced_and_the_adapter_is_bit_equal(
    trained: TrainedRegistry,
) -> None:
    registry = trained.registry
    train_jobs = registry.train_jobs(command=registry.trainers.command)
    started = trainer_of(train_jobs, registry)
    run_id = registry.new_run()
    with registry.working(train_jobs):
        wait_for(lambda: registry.rows(Checkpoint, run_id=run_id))
        os.kill(started[0].pid, signal.SIGKILL)
        run = registry.until_final(Run, run_id)
    assert weights_of(registry, run_id) == weights_of(registry, trained.run_id)
    assert starts_of(registry, run_id) == 2
    assert run.attempt == 1  # the second attempt stored new checkpoints
    assert run.resumed_at_step is not None
    assert run.resumed_at_step % CONFIG["checkpoint_every"] == 0
    with registry.database.read() as session:
        metrics = run_metrics(session, run_id)
        reference = run_metrics(session, trained.run_id)
    assert metrics == reference
    for step in (0, 8):
        (again,) = registry.rows(Sample, run_id=run_id, step=step)
        (first,) = registry.rows(Sample, run_id=trained.run_id, step=step)
        assert again.sha256 == first.sha256


def test_a_run_that_is_changed_while_it_trains_is_repeated_exactly(
    trained: TrainedRegistry,
) -> None:
    """Also where its trainer is killed after the change, and in a run that repeats it."""
    registry = trained.registry
    train_jobs = registry.train_jobs(command=registry.trainers.command)
    started = trainer_of(train_jobs, registry)
    run_id = registry.new_run(steps=5_000)
    with registry.working(train_jobs):
        wait_for(lambda: registry.row(Run, run_id).step >= 2)
        steps = registry.row(Run, run_id).step + 24
        with registry.database.write() as session:
            change_settings(session, run_id, {"steps": steps, "checkpoint_every": 9})
        wait_for(lambda: registry.row(Run, run_id).changes)
        os.kill(started[0].pid, signal.SIGKILL)
        run = registry.until_final(Run, run_id)
        with registry.database.write() as session:
            again = train_again(session, run_id)[0].key
        repeated = registry.until_final(Run, again)
    assert starts_of(registry, run_id) == 2
    assert (run.step, run.total_steps, run.config["checkpoint_every"]) == (steps, steps, 9)
    assert (run.change_requested, run.changes) == (None, repeated.changes)
    assert weights_of(registry, run_id) == weights_of(registry, again)
    with registry.database.read() as session:
        assert run_metrics(session, run_id) == run_metrics(session, again)


def starts_of(registry: Registry, run_id: int) -> int:
    """The number of times that a worker claimed this run."""
    return len(registry.rows(Event, subject="run", subject_id=run_id, kind="running"))


def test_a_running_training_is_canceled_and_another_drains_and_goes_on(
    trained: TrainedRegistry,
) -> None:
    registry = trained.registry
    train_jobs = registry.train_jobs(command=registry.trainers.command)
    canceled = registry.new_run(steps=5_000)
    with registry.working(train_jobs) as loop:
        wait_for(lambda: registry.row(Run, canceled).step >= 2)
        registry.cancel(Run, canceled)
        registry.cancel(Run, canceled)
        assert registry.until_final(Run, canceled).status == "canceled"
        assert registry.row(Run, canceled).adapter_version_id is None
        with registry.database.read() as session:
            assert checkpoints.count_checkpoints(session, canceled) >= 1
        drained = registry.new_run()
        wait_for(lambda: registry.row(Run, drained).step >= 1)
        loop.request_stop()
    run = registry.row(Run, drained)
    if run.status == "queued":
        assert (run.attempt, run.owner_token) == (0, None)
        assert registry.rows(Checkpoint, run_id=drained)[-1].step == run.step
        with registry.working(registry.train_jobs(command=registry.trainers.command)):
            registry.until_final(Run, drained)
    assert weights_of(registry, drained) == weights_of(registry, trained.run_id)


def test_a_training_asked_to_stop_keeps_what_it_has(trained: TrainedRegistry) -> None:
    registry = trained.registry
    run_id = registry.new_run(steps=5_000, checkpoint_every=0)
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        wait_for(lambda: registry.row(Run, run_id).step >= 1)
        _set(registry, run_id, sample_requested=True, save_requested=True)
        wait_for(lambda: registry.rows(Checkpoint, run_id=run_id))
        wait_for(lambda: len(registry.rows(Sample, run_id=run_id)) >= 2)
        assert not registry.row(Run, run_id).sample_requested
        (saved,) = registry.rows(Checkpoint, run_id=run_id)
        wait_for(lambda: registry.row(Run, run_id).step > saved.step)
        _set(registry, run_id, stop_requested=True)
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error) == ("succeeded", None)
    version = registry.row(AdapterVersion, run.adapter_version_id)
    assert version.steps == run.step < 5_000
    assert version.details["outcome"] == "stopped"
    with registry.database.read() as session:
        last, by_hand = checkpoints.list_checkpoints(session, run_id)
    assert (last.step, last.is_in_use, by_hand.kept) == (run.step, True, True)
    assert registry.rows(Sample, run_id=run_id, step=run.step)
    assert registry.rows(Sample, run_id=run_id, step=by_hand.step)


def test_a_training_that_stops_by_itself_keeps_what_it_has_and_its_best_checkpoint(
    registry: Registry,
) -> None:
    with registry.database.write() as session:
        version = session.get_one(DatasetVersion, registry.version_id)
        more = [registry.store.put_bytes(make_png(number)).sha256 for number in range(4)]
        items = [
            row | {"sha256": blob, "clean_sha256": blob}
            for row, blob in zip(version.items, more, strict=True)
        ]
        version.items = [*version.items, *items]
    config = {"steps": 9, "patience": 1, "learning_rate": 1e-6, "sample_prompts": []}
    run_id = registry.new_run(**config, keep_adapters=1, keep_checkpoints=1)
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error, run.step) == ("succeeded", None, 4)
    version = registry.row(AdapterVersion, run.adapter_version_id)
    assert (version.steps, version.details["outcome"]) == (4, "stopped")
    reason = "Stopped at step 4: the style has not come clearly closer since step 2."
    assert version.details["notices"] == [reason]
    assert [row.step for row in registry.rows(Checkpoint, run_id=run_id)] == [2, 4]
    with registry.database.read() as session:
        found = checkpoints.list_checkpoints(session, run_id)
    assert [row.step for row in found] == [4, 2]


def _set(registry: Registry, run_id: int, **values: bool) -> None:
    with registry.database.write() as session:
        run = session.get_one(Run, run_id)
        for name, value in values.items():
            setattr(run, name, value)
        session.add(run)


def test_a_run_that_always_crashes_its_trainer_fails_after_three_attempts(
    registry: Registry,
) -> None:
    run_id = registry.new_run()
    with registry.working(registry.train_jobs(command=CRASHES)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("failed", "trainer_crashed", 3)
    assert "exit code -6" in run.error
    assert "out of luck" in run.error_trace


def test_a_trainer_that_does_not_listen_is_killed_and_the_run_is_canceled(
    registry: Registry,
) -> None:
    train_jobs = registry.train_jobs(command=HANGS, timeouts=TrainerTimeouts(cancel=0.3))
    started = trainer_of(train_jobs, registry)
    run_id = registry.new_run()
    with registry.working(train_jobs):
        wait_for(lambda: registry.row(Run, run_id).phase == "preparing")
        registry.cancel(Run, run_id)
        assert registry.until_final(Run, run_id).status == "canceled"
        assert not started[0].is_alive


def test_a_training_that_does_nothing_is_ended_and_tried_again(registry: Registry) -> None:
    run_id = registry.new_run()
    with registry.working(registry.train_jobs(command=HANGS, timeouts=SHORT)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("failed", "stalled", 3)


def test_a_trainer_that_waits_for_its_worker_is_not_stalled(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_order = TrainingResult.export_order

    def wait_for_storage(self: TrainingResult) -> Export:
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * TrainerTimeouts.stall)
        monkeypatch.setattr(attempt, "time", later)
        return export_order(self)

    monkeypatch.setattr(TrainingResult, "export_order", wait_for_storage)
    run_id = registry.new_run()
    with registry.working(registry.train_jobs()):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("succeeded", None, 1)


def test_a_worker_that_ends_gives_the_run_back_even_when_its_trainer_hangs(
    registry: Registry,
) -> None:
    run_id = registry.new_run()
    with registry.working(registry.train_jobs(command=HANGS, timeouts=SHORT)):
        wait_for(lambda: registry.row(Run, run_id).phase == "preparing")
    run = registry.row(Run, run_id)
    assert (run.status, run.attempt) in {("queued", 0), ("queued", 1)}


def test_a_worker_that_lost_its_run_kills_the_trainer_and_writes_nothing(
    registry: Registry,
) -> None:
    train_jobs = registry.train_jobs(command=HANGS)
    started = trainer_of(train_jobs, registry)
    run_id = registry.new_run()
    with registry.working(train_jobs):
        wait_for(lambda: registry.row(Run, run_id).phase == "preparing")
        with registry.database.write() as session:
            run = session.get_one(Run, run_id)
            run.owner_token, run.phase = "somebody else", "theirs"
            session.add(run)
        wait_for(lambda: not started[0].is_alive)
    run = registry.row(Run, run_id)
    assert (run.status, run.owner_token, run.phase) == ("running", "somebody else", "theirs")


def test_a_run_without_its_pictures_fails_with_a_sentence(registry: Registry) -> None:
    run_id = registry.new_run()
    for blob in list(registry.store.list()):
        registry.store.delete(blob.sha256)
    with registry.working(registry.train_jobs(command=HANGS)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("failed", "blob_not_found", 1)
    assert run.error == (
        "The file with an image that runs on the dataset “Shapes” were trained with is missing. "
        "Restore it from a backup, upload the image again, or delete it."
    )


def test_a_waiting_run_that_was_canceled_is_never_begun(registry: Registry) -> None:
    run_id = registry.new_run()
    registry.cancel(Run, run_id)
    with registry.working(registry.train_jobs(command=HANGS)) as loop:
        loop.serve_wakeup()
        loop.serve_wakeup()
    assert registry.row(Run, run_id).status == "canceled"
    with registry.database.read() as session:
        kinds = session.exec(select(Event.kind).where(Event.subject_id == run_id)).all()
    assert "running" not in kinds


@pytest.mark.parametrize("count", [4])
def test_duplicate_hints_do_nothing(registry: Registry, count: int) -> None:
    with registry.working(registry.train_jobs(command=HANGS)) as loop:
        wakeups = [threading.Thread(target=loop.serve_wakeup) for _ in range(count)]
        for wakeup in wakeups:
            wakeup.start()
        for wakeup in wakeups:
            wakeup.join(PATIENCE_SECONDS)
            assert not wakeup.is_alive()


def test_a_ruined_training_becomes_a_version_that_is_not_used(registry: Registry) -> None:
    with registry.database.write() as session:
        new = NewVersion(
            name="Slate", base_family="sd1", sha256="0" * 64, size_bytes=1, rank=1, alpha=1
        )
        sound = publish(session, new)
        sound_id, adapter_id = sound.key, sound.adapter_id
    run_id = registry.new_run(
        steps=3, learning_rate=1.0, alpha=64.0, targets="all", lr_scheduler="constant",
        sample_prompts=[],
    )  # fmt: skip
    with registry.database.write() as session:
        session.get_one(Run, run_id).adapter_id = adapter_id
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.outcome, run.error) == ("succeeded", "ruined", None)
    assert run.outcome_reason.startswith("The loss on fixed images is ")
    assert (run.loss_rise > 1, run.good_steps) == (True, [2])
    version = registry.row(AdapterVersion, run.adapter_version_id)
    assert (version.adapter_id, version.version) == (adapter_id, 2)
    assert version.ruined == run.outcome_reason
    (alias,) = _aliases(registry)
    assert (alias.alias, alias.version_id) == ("latest", sound_id)
    with registry.database.read() as session:
        measured = run_metrics(session, run_id)["series"]["fixed_loss"]
    assert measured["steps"] == [0, 2, 3]
    assert measured["values"][1] < measured["values"][0]
