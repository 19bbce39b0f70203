"""Runs in trouble and runs that go on: full memory, rolled back, held out, continued."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from app.registry.blobs import findings
from app.registry.runs.progress import run_metrics
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.blobs import FileProblem
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import Event
from app.registry.tables.runs import Checkpoint, Run
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import CONFIG, Registry, scripted_trainer
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import read_folder
from worker.core.training.events import FixedLoss, Notice, RolledBack, StepDone, ValidationDone
from worker.runtime.messages import FailureReport
from worker.runtime.scratch import ItemsToTrain, write_images


def event_texts(registry: Registry, run_id: int, kind: str) -> list[str]:
    """The texts of the run's events of this kind, in order."""
    events = registry.rows(Event, subject="run", subject_id=run_id, kind=kind)
    return [event.data["text"] for event in events]


@pytest.mark.parametrize("family", ["sd1", "zimage"])
def test_full_memory_is_answered_with_one_named_step_down_at_a_time(
    registry: Registry, family: str
) -> None:
    with registry.database.write() as session:
        session.get_one(BaseModel, registry.base_id).family = family
    full = scripted_trainer([FailureReport("out_of_memory", "No memory.", "trace", expected=True)])
    run_id = registry.new_run(batch_size=4)
    with registry.working(registry.train_jobs(command=full)):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("failed", "out_of_memory", 1)
    assert "Choose a smaller resolution or rank" in run.error
    config = TrainConfig.model_validate(run.config)
    assert config.gradient_checkpointing
    assert (config.batch_size, config.gradient_accumulation) == (1, 4)
    steps = event_texts(registry, run_id, "warning")
    assert all(text.startswith("Out of memory") for text in steps)
    assert "“Gradient checkpointing” was turned on" in steps[0]
    assert "The batch size is now 2, with 2 gradient accumulation steps." in steps[1]
    assert "The batch size is now 1, with 4 gradient accumulation steps." in steps[2]
    said = sum("now int8 rows" in text for text in steps)
    assert (config.base_weights, said) == (("int8", 1) if family == "zimage" else ("auto", 0))


def test_a_run_whose_cache_was_emptied_is_tried_again(registry: Registry) -> None:
    lost = FailureReport("lost_cache", "The captions are gone.", "trace", expected=True)
    run_id = registry.new_run(steps=1)
    with registry.working(registry.train_jobs(command=scripted_trainer([lost]))):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.attempt) == ("failed", "lost_cache", run.max_attempts)
    assert run.error == "The captions are gone."
    assert not event_texts(registry, run_id, "warning")


def test_a_run_that_needs_less_memory_goes_on_from_its_checkpoint(trained: TrainedRegistry) -> None:
    registry = trained.registry
    (start,) = registry.rows(Checkpoint, run_id=trained.run_id, step=6)
    full = scripted_trainer([FailureReport("out_of_memory", "No memory.", "trace", expected=True)])
    run_id = registry.new_run(batch_size=4, start=start)
    with registry.working(registry.train_jobs(command=full)):
        run = registry.until_final(Run, run_id)
    assert "the run starts again from step 6." in event_texts(registry, run_id, "warning")[0]
    less = {name: run.config[name] for name in ("batch_size", "gradient_accumulation")}
    assert [row.step for row in registry.rows(Checkpoint, run_id=run_id)] == [6]
    assert less == {"batch_size": 1, "gradient_accumulation": 4}
    with registry.working(registry.train_jobs()):
        run_id = registry.new_run(start=start, gradient_checkpointing=True, **less)
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error, run.step) == ("succeeded", None, CONFIG["steps"])
    with registry.database.read() as session:
        assert run_metrics(session, run_id)["series"]["loss"]["steps"] == [7, 8]


def test_a_run_whose_start_is_gone_says_so_and_trains_nothing(registry: Registry) -> None:
    half = registry.new_run("Half")
    registry.cancel(Run, half)
    start = Checkpoint(run_id=half, step=2, sha256="0" * 64, size_bytes=1)
    with registry.working(registry.train_jobs(command=scripted_trainer([]))):
        run = registry.until_final(Run, registry.new_run(parent=half, start=start))
    assert (run.status, run.error_code, run.step) == ("failed", "checkpoint", 0)
    assert "Continue from another checkpoint" in run.error


def test_a_damaged_checkpoint_is_passed_over_with_a_notice_on_the_run(registry: Registry) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w"):
        pass
    older, newer = (
        registry.store.put_bytes(content.getvalue() + end) for end in (b"", b"\0" * 512)
    )
    damaged = next((registry.settings.data_dir / "blobs").glob(f"??/??/{newer.sha256}"))
    damaged.write_bytes(b"#" * newer.size)
    ends = scripted_trainer([FailureReport("x", "It ends here.", "trace", expected=True)])
    run_id = registry.new_run(
        start=Checkpoint(run_id=0, step=60, sha256=older.sha256, size_bytes=older.size)
    )
    with registry.database.write() as session:
        session.add(Checkpoint(run_id=run_id, step=80, sha256=newer.sha256, size_bytes=newer.size))
    with registry.working(registry.train_jobs(command=ends)):
        run = registry.until_final(Run, run_id)
    assert (run.error, run.step) == ("It ends here.", 60)
    (text,) = event_texts(registry, run_id, "warning")
    assert text == (
        "The checkpoint of step 80 is damaged or missing, so the run continues from step 60."
    )
    with registry.database.read() as session:
        assert findings.problems(session) == {newer.sha256: FileProblem.DAMAGED}


def test_losses_that_were_rolled_back_are_dropped_and_reported(registry: Registry) -> None:
    def step(number: int, loss: float) -> StepDone:
        return StepDone(number, 8, loss, 1e-3, 1.0)

    story = [
        step(1, 0.5),
        ValidationDone(0, 0.9, 0.8, 1.0),
        FixedLoss(0, 0.4, 0.4, 1.0, is_high=False),
        step(2, 0.4),
        step(3, 9.0),
        ValidationDone(3, 0.7, 0.6, 0.8),
        FixedLoss(3, 0.3, 0.4, 0.9, is_high=False),
        RolledBack(1),
        Notice("It went back.", is_warning=True),
        Notice("By the way."),
        step(2, 0.3),
        ValidationDone(2, 0.5, 0.4, 0.6),
        FixedLoss(2, 1.2, 0.4, 3.0, is_high=True),
        FailureReport("diverged", "It diverged.", "trace", expected=True),
    ]
    run_id = registry.new_run()
    with registry.working(registry.train_jobs(command=scripted_trainer(story))):
        run = registry.until_final(Run, run_id)
    assert (run.status, run.error_code, run.step) == ("failed", "diverged", 2)
    with registry.database.read() as session:
        series = run_metrics(session, run_id)["series"]
    assert series["loss"]["steps"] == [1, 2]
    assert series["loss"]["values"] == [0.5, pytest.approx(0.3)]
    assert series["held_out"]["steps"] == [0, 2]
    assert series["held_out_high"]["values"] == pytest.approx([1.0, 0.6])
    assert event_texts(registry, run_id, "warning") == ["It went back."]
    assert series["fixed_loss"]["steps"] == [0, 2]
    assert run.loss_rise == 3.0
    assert event_texts(registry, run_id, "notice") == [
        "By the way.",
        "At step 2 the loss on fixed images is 3.0 times that of the base model.",
    ]


def test_a_run_that_continues_another_ends_as_one_long_run(registry: Registry) -> None:
    constant = {"lr_scheduler": "constant", "validation_share": 0.25}
    with registry.working(registry.train_jobs()):
        whole = registry.until_final(Run, registry.new_run("Whole", **constant))
        short = registry.until_final(Run, registry.new_run("Half", steps=4, **constant))
        start = registry.rows(Checkpoint, run_id=short.key)[-1]
        assert start.step == 4
        longer = registry.new_run("Longer", parent=short.key, start=start, **constant)
        longer = registry.until_final(Run, longer)
    assert (longer.status, longer.error, longer.step) == ("succeeded", None, CONFIG["steps"])
    hashes = {
        registry.row(AdapterVersion, run.adapter_version_id).details["tensor_sha256"]
        for run in (whole, longer)
    }
    assert len(hashes) == 1
    with registry.database.read() as session:
        before = run_metrics(session, whole.key)["series"]
        after = run_metrics(session, longer.key)["series"]
    assert after["loss"]["steps"] == [5, 6, 7, 8]
    assert after["loss"]["values"] == before["loss"]["values"][4:]
    assert before["held_out"]["steps"] == [0, 2, 4, 6, 8]
    assert after["held_out"]["values"] == before["held_out"]["values"][3:]
    # the blob both runs name lives as long as one of them names it
    kept = registry.rows(Checkpoint, run_id=short.key)
    assert all(registry.store.exists(row.sha256) for row in kept)


def test_images_are_laid_out_with_their_settings(registry: Registry, tmp_path: Path) -> None:
    items = registry.row(DatasetVersion, registry.version_id).items
    often = items[0] | {"repeats": 3, "never_flip": True}
    captions = [{"kind": "long", "caption": items[1]["caption"], "share": 2}]
    captions.append({"kind": "tags", "caption": "a, b", "share": 1})
    write_images(
        registry.store,
        [
            ItemsToTrain([often, items[1] | {"captions": captions, "focus": [0.0, 0.25]}]),
            ItemsToTrain([items[2]], is_regularization=True),
        ],
        tmp_path / "laid" / "out",
        tmp_path / "laid" / "blobs",
    )
    images = read_folder(tmp_path / "laid" / "out")
    assert [(i.repeats, i.never_flip, i.is_regularization) for i in images] == [
        (3, True, False),
        (1, False, False),
        (1, False, True),
    ]
    assert [(one.share, one.kind) for one in images[1].captions] == [(2, "long"), (1, "tags")]
    assert [image.focus for image in images] == [None, (0.0, 0.25), None]
