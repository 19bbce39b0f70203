"""A sweep of real trainings: paused at half, measured, the better half trained to its end."""

from __future__ import annotations

import os
import signal

import pytest
from sqlmodel import col, select

from app.registry import evaluations
from app.registry.job_kinds.states import JobStatus
from app.registry.runs.progress import HELD_OUT, values_by_step
from app.registry.runs.requests import RunRequest
from app.registry.sweeps import service
from app.registry.sweeps.plan import SweepRequest, plan_sweep
from app.registry.sweeps.records import read_result
from app.registry.tables.adapters import Adapter, is_listed
from app.registry.tables.datasets import Image
from app.registry.tables.jobs import Event
from app.registry.tables.runs import Checkpoint, Run, Stage, Sweep
from tests.worker.runtime.job_loops import CONFIG, Registry, picture, wait_for
from tests.worker.runtime.test_train_jobs import starts_of, trainer_of
from worker.runtime.io_jobs import IoJobs
from worker.runtime.render_jobs import RenderJobs

IMAGES = 10
SEEDS = (0, 5)


def order(registry: Registry) -> int:
    """A sweep of three configurations with two seeds, on ten images of which some are held out."""
    with registry.database.write() as session:
        for number in range(IMAGES):
            blob = registry.store.put_bytes(picture(number)).sha256
            hashes = dict.fromkeys(("sha256", "clean_sha256", "thumbnail_sha256"), blob)
            size = {"width": 64, "height": 64, "size_bytes": 1}
            name = f"{number}.png"
            session.add(Image(dataset_id=registry.dataset_id, filename=name, **hashes, **size))
    config = CONFIG | {"steps": 4, "checkpoint_every": 1, "validation_share": 0.4}
    run = RunRequest(dataset_id=registry.dataset_id, config=config, name="Chalk")
    axes = {"learning_rate": [1e-3, 1e-4, 1e-5]}
    with registry.database.write() as session:
        wanted = SweepRequest(run=run, axes=axes, seeds=SEEDS, subjects=6)
        return service.create_sweep(session, plan_sweep(session, wanted)).key


def test_a_sweep_goes_on_by_itself_though_its_trainer_is_killed(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluations, "STEPS", 1)
    sweep_id = order(registry)
    train_jobs = registry.train_jobs(command=registry.trainers.command)
    started = trainer_of(train_jobs, registry)
    renders = RenderJobs(registry.settings, registry.database, registry.store)
    measures = IoJobs(registry.settings, registry.database, registry.store)
    with registry.working(train_jobs), registry.working(renders), registry.working(measures):
        wait_for(lambda: registry.rows(Checkpoint))
        os.kill(started[0].pid, signal.SIGKILL)
        sweep = wait_for(lambda: ended(registry, sweep_id))
    result = read_result(sweep)
    assert (sweep.status, sweep.error) == (JobStatus.SUCCEEDED, None)
    assert result.reason
    assert len(result.of(Stage.HALF)) == 6
    assert len(result.of(Stage.FULL)) == 4
    runs = registry.rows(Run, sweep_id=sweep_id)
    assert {run.status for run in runs} == {"succeeded"}
    first = [run for run in runs if run.config["seed"] in SEEDS]
    assert sorted(run.step for run in first) == [2, 2, 4, 4, 4, 4]
    assert starts_of(registry, runs[0].key) >= 2
    with registry.database.read() as session:
        losses = [values_by_step(session, run.key, HELD_OUT[0])[0] for run in first]
        assert losses == [losses[0]] * 6  # of the base, on the same images, for both seeds
        assert not session.exec(select(Adapter).where(is_listed())).all()
        paused = select(Event).where(Event.subject == "run", col(Event.kind) == "paused")
        assert len(session.exec(paused).all()) == 6


def ended(registry: Registry, sweep_id: int) -> Sweep | None:
    found = registry.row(Sweep, sweep_id)
    return found if found.state.is_final else None
