"""A dry run: the first steps of a training measure what it takes, behind every run."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image as Picture
from sqlmodel import select

from app.registry.job_kinds.kinds import DryRunArgs, DryRunResult
from app.registry.jobs import service as jobs
from app.registry.runs import dry_runs
from app.registry.tables.added_models import BaseModel, BaseSpeed
from app.registry.tables.datasets import Image
from app.registry.tables.jobs import AFTER_RUNS, IoJob
from app.registry.tables.runs import Run
from tests.worker.runtime.job_loops import (
    CONFIG,
    Registry,
    add_images,
    scripted_trainer,
    wait_for,
)
from worker.core.training.config import TrainConfig
from worker.runtime.messages import FailureReport

NO_MEMORY = FailureReport("out_of_memory", "No memory.", "trace", expected=True)


def order(registry: Registry, **config: Any) -> int:
    add_images(registry)
    args = DryRunArgs(config=config_of(**config).model_dump(mode="json"), dataset_ids=(1,))
    with registry.database.write() as session:
        job = jobs.enqueue_io(session, args, subject_id=registry.base_id, priority=AFTER_RUNS)
        return job.key


def config_of(**config: Any) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG | config)


def until_ended(registry: Registry, key: int) -> tuple[IoJob, DryRunResult]:
    job = registry.until_final(IoJob, key)
    return job, job.outcome(DryRunResult)


@pytest.mark.slow
@pytest.mark.parametrize("embedded_base", ["small_starter", "zimage_folder"], indirect=True)
def test_real_steps_measure_time_and_memory(registry: Registry) -> None:
    key = order(registry, targets="attention", rank=3)
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        job, found = until_ended(registry, key)
    assert (job.status, job.error) == ("succeeded", None)
    assert found.seconds_per_step is not None
    assert found.seconds_low is not None
    assert found.seconds_high is not None
    assert found.seconds_per_step > 0
    assert found.seconds_low < found.seconds_per_step < found.seconds_high
    assert found.sample_seconds is not None
    assert found.peak_memory_bytes is not None
    assert found.peak_memory_bytes > 100_000_000
    assert 0 < found.layers < found.all_layers
    assert found.changes == ()
    assert found.device == "CPU, 1 thread"
    assert len(found.round_trips) == 4
    losses = [one.psnr for one in found.round_trips]
    assert losses == sorted(losses)
    assert 5 < losses[0] < 60
    for one in found.round_trips:
        for sha256 in (one.before, one.after):
            with registry.store.open(sha256) as blob, Picture.open(blob) as image:
                assert image.size == (64, 64)
    assert registry.rows(Run) == []
    (speed,) = registry.rows(BaseSpeed, rank=3)
    assert speed.trainable_parameters > 0
    with registry.database.read() as session:
        same = dry_runs.find_dry_run(session, registry.base_id, config_of(rank=3, steps=99))
        other = dry_runs.find_dry_run(session, registry.base_id, config_of(rank=4))
    assert same.measured is not None
    assert same.measured.id == key
    assert other.newest is None


def test_a_block_that_the_base_lacks_is_named(registry: Registry) -> None:
    key = order(registry, blocks="down.3")
    with registry.working(registry.train_jobs(command=registry.trainers.command)):
        job, _ = until_ended(registry, key)
    assert (job.status, job.error_code) == ("failed", "unsupported")
    assert job.error.startswith("This base has no UNet block down.3. Choose from ")


def test_what_does_not_fit_is_measured_with_less_and_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = order(registry, batch_size=2)
    train_jobs = registry.train_jobs()
    commands = [scripted_trainer([NO_MEMORY])] * 2 + [registry.trainers.quick] * 9
    start = train_jobs._start_trainer

    def start_next() -> Any:
        train_jobs._command = commands.pop(0)
        return start()

    monkeypatch.setattr(train_jobs.trainers, "_start", start_next)
    with registry.working(train_jobs):
        job, found = until_ended(registry, key)
    assert (job.status, job.error) == ("succeeded", None)
    assert found.changes == (
        "“Gradient checkpointing” was turned on: steps take about 50 % longer.",
        "The batch size is now 1, with 2 gradient accumulation steps.",
    )


def test_what_fits_in_no_way_fails_with_advice(registry: Registry) -> None:
    key = order(registry, batch_size=1, gradient_checkpointing=True)
    with registry.working(registry.train_jobs(command=scripted_trainer([NO_MEMORY]))):
        job, _ = until_ended(registry, key)
    assert (job.status, job.error_code, job.attempt) == ("failed", "out_of_memory", 1)
    assert job.error.startswith("Out of memory, even with a batch of one image")


def test_it_gives_way_to_a_run_and_goes_on_after_it(registry: Registry) -> None:
    key = order(registry)
    with registry.working(registry.train_jobs(command=registry.trainers.sleepy)) as loop:
        wait_for(lambda: registry.row(IoJob, key).status == "running")
        run_id = registry.new_run(steps=2)
        loop.wake()
        run = registry.until_final(Run, run_id)
        job, found = until_ended(registry, key)
    assert run.status == "succeeded"
    assert (job.status, job.attempt) == ("succeeded", 1)
    assert found.seconds_per_step > 0.25
    assert job.finished_at > run.finished_at > job.started_at


def test_an_io_worker_leaves_it_to_those_that_train(registry: Registry) -> None:
    key = order(registry)
    with registry.database.write() as session:
        assert not jobs.has_waiting(session, IoJob)
        assert jobs.claim_next(session, IoJob, lease_seconds=9) is None
        assert jobs.has_waiting(session, IoJob, queue="train")
        assert not jobs.has_waiting(session, IoJob, queue="render")
    registry.new_run()
    with registry.database.read() as session:
        assert not jobs.has_waiting(session, IoJob, queue="train")
    registry.cancel(IoJob, key)
    assert registry.row(IoJob, key).status == "canceled"


def test_a_cancel_ends_it_at_once(registry: Registry) -> None:
    key = order(registry)
    with registry.working(registry.train_jobs(command=registry.trainers.sleepy)):
        wait_for(lambda: registry.row(IoJob, key).status == "running")
        registry.cancel(IoJob, key)
        job, found = until_ended(registry, key)
    assert (job.status, found.seconds_per_step) == ("canceled", None)
    assert list(registry.settings.scratch.glob("io-*")) == []


def test_a_worker_that_stops_returns_it_to_the_queue(registry: Registry) -> None:
    key = order(registry)
    with registry.working(registry.train_jobs(command=registry.trainers.sleepy)):
        wait_for(lambda: registry.row(IoJob, key).status == "running")
    job = registry.row(IoJob, key)
    assert (job.status, job.attempt) == ("queued", 0)


@pytest.mark.parametrize(
    ("messages", "code", "sentence"),
    [
        ([], "trainer_crashed", "The training process was killed or crashed (exit code 0)."),
        (
            [FailureReport("base_model", "The files are gone.", "trace", expected=True)],
            "base_model",
            "The files are gone.",
        ),
    ],
)
def test_a_trainer_that_fails_says_why(
    messages: list[FailureReport], code: str, sentence: str, registry: Registry
) -> None:
    key = order(registry)
    with registry.working(registry.train_jobs(command=scripted_trainer(messages))):
        job, _ = until_ended(registry, key)
    assert (job.status, job.error_code) == ("failed", code)
    assert job.error.startswith(sentence)


def test_a_base_or_a_dataset_that_is_gone_is_named(registry: Registry) -> None:
    key = order(registry)
    with registry.database.write() as session:
        session.get_one(BaseModel, registry.base_id).status = "removed"
    with registry.working(registry.train_jobs()):
        job, _ = until_ended(registry, key)
    assert job.status == "failed"
    assert "removed" in job.error
    with registry.database.write() as session:
        session.get_one(BaseModel, registry.base_id).status = "ready"
        for image in session.exec(select(Image)):
            session.delete(image)
    with registry.database.write() as session:
        args = DryRunArgs(config=config_of().model_dump(mode="json"), dataset_ids=(1,))
        key = jobs.enqueue_io(session, args, subject_id=registry.base_id).key
    with registry.working(registry.train_jobs()):
        job, _ = until_ended(registry, key)
    assert (job.status, job.error) == ("failed", "The images to measure with were deleted.")


def test_that_of_a_killed_worker_is_taken_over_and_the_next_one_replaces_it(
    registry: Registry,
) -> None:
    key = order(registry)
    with registry.database.write() as session:
        claimed = jobs.claim_next(session, IoJob, lease_seconds=0.1, queue="train")
        assert claimed is not None
    with registry.working(registry.train_jobs()) as loop:
        job, found = until_ended(registry, key)
        with registry.database.write() as session:
            args = job.arguments(DryRunArgs)
            again = jobs.enqueue_io(session, args, subject_id=registry.base_id).key
        loop.wake()
        second, _ = until_ended(registry, again)
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert found.seconds_per_step is not None
    assert (second.status, second.attempt) == ("succeeded", 1)
    with registry.database.read() as session:
        known = dry_runs.find_dry_run(session, registry.base_id, config_of())
    assert known.measured is not None
    assert known.measured.id == again
