"""The speed of training steps, measured before the first run, which need not wait for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.tables.added_models import BaseSpeed
from app.registry.tables.runs import Run
from tests.worker.runtime.job_loops import open_registry, wait_for
from tests.worker.runtime.trainer_server import TrainerServer
from worker.core.training.presets import Preset
from worker.runtime import train_jobs


@pytest.mark.parametrize("forks", [True, False])
def test_a_run_does_not_wait_for_measurements(
    forks: bool,
    tmp_path: Path,
    sqlite_template: Path,
    trainers: TrainerServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = next(
        order
        for order in train_jobs._calibration_orders(train_jobs.starter.PATH)
        if order.config.batch_size == min_batch()
    )
    monkeypatch.setattr(train_jobs, "_calibration_orders", lambda _: [order] * 1000)
    registry = open_registry(tmp_path, sqlite_template, trainers, is_measured=False)
    command = trainers.command if forks else trainers.quick
    jobs = registry.train_jobs(command=command, forks=forks, calibrates_after=0.0)
    with registry.working(jobs) as loop:
        (speed,) = wait_for(lambda: registry.rows(BaseSpeed))
        assert speed.batch_size == order.config.batch_size
        assert (jobs.trainers._calibrator is not None) == forks
        run_id = registry.new_run(steps=1, sample_prompts=[], checkpoint_every=1)
        loop.wake()
        run = registry.until_final(Run, run_id)
        assert (run.status, run.error) == ("succeeded", None)
        assert jobs.trainers._calibrator is None
        # what the first trainer found is known to the next one
        wait_for(lambda: jobs.trainers._threads == {train_jobs.starter.PATH: 1})
    registry.database.dispose()


def min_batch() -> int:
    orders = train_jobs._calibration_orders(train_jobs.starter.PATH)
    assert len({order.config.batch_size for order in orders}) <= len(Preset)
    return min(order.config.batch_size for order in orders)
