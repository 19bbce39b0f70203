"""Sweeps whose workers are stand-ins: runs save checkpoints, images are drawn, styles are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlmodel import col, select

from app.registry import evaluations
from app.registry.errors import AppError
from app.registry.job_kinds.kinds import AdvanceSweepArgs, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs.requests import RunRequest
from app.registry.state import AppState
from app.registry.sweeps import advance, service
from app.registry.sweeps.plan import SweepRequest, plan_sweep
from app.registry.sweeps.records import Score
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run, Stage, Sweep
from tests import fake_workers
from tests.fake_workers import FakeTraining
from worker.core.training.presets import Preset

Style = Callable[[Stage, int, int], float]
"""The style of a configuration at a stage with a training seed."""


def images_of_style(state: AppState, pictures: int = 12) -> Dataset:
    """A dataset that a sweep can rank by."""
    return fake_workers.dataset(state, "Linocut", pictures=pictures, trigger_word="linocut")


def request(
    of: Dataset, *, axes: Mapping[str, Any] | None = None, seeds: tuple[int, ...] = (0, 1)
) -> SweepRequest:
    """A sweep over ranks, of 40 steps."""
    config = {"steps": 40, "sample_prompts": ["a castle"]}
    run = RunRequest(dataset_id=of.key, preset=Preset.QUICK, config=config)
    return SweepRequest(run=run, axes=axes or {"rank": [2, 4, 8]}, seeds=seeds, subjects=6)


def start(state: AppState, wanted: SweepRequest) -> int:
    """Start a sweep."""
    with state.database.write() as session:
        return service.create_sweep(session, plan_sweep(session, wanted)).key


def train(state: AppState, *, diverge: Callable[[Run], bool] = lambda run: False) -> list[int]:
    """Train every run that waits to its pause or end; some diverge at half of that."""
    trained = []
    while _waits(state):
        training = FakeTraining(state)
        trained.append(training.run_id)
        with state.database.read() as session:
            run = session.get_one(Run, training.run_id)
        training.step, end = run.step, run.pause_at or run.total_steps
        if diverge(run):
            training.train(end // 2)
            training.fail("diverged", "The training diverged.")
            continue
        training.train(end - run.step)
        training.checkpoint()
        with state.database.write() as session:
            status = JobStatus.PAUSED if run.pause_at else JobStatus.SUCCEEDED
            jobs.finish(session, Run, training.claim, status, training_seconds=2.0 * end)
    return trained


def _waits(state: AppState) -> bool:
    with state.database.read() as session:
        return jobs.has_waiting(session, Run)


def work(state: AppState, style: Style) -> None:
    """Carry out all jobs of sweeps that wait, as io and render workers would."""
    while True:
        fake_workers.draw(state)
        with state.database.read() as session:
            waiting = select(IoJob).where(IoJob.status == JobStatus.QUEUED)
            of_sweeps = waiting.where(IoJob.kind == JobKind.ADVANCE_SWEEP)
            job = session.exec(of_sweeps.order_by(col(IoJob.id)).limit(1)).first()
        if job is None:
            return
        args = job.arguments(AdvanceSweepArgs)
        assert job.subject_id is not None
        if args.grid_id:
            _measure(state, job.subject_id, args, style)
        else:
            look(state, job.subject_id)
        ends = ((JobStatus.QUEUED, JobStatus.RUNNING), (JobStatus.RUNNING, JobStatus.SUCCEEDED))
        with state.database.write() as session:
            for old, new in ends:
                jobs.transition(session, IoJob, job.key, old=old, new=new)


def look(state: AppState, sweep_id: int) -> None:
    with state.database.write() as session:
        draft = advance.advance(session, sweep_id)
    if draft is None:
        return
    try:
        with state.database.read() as session:
            planned = evaluations.plan_images(session, draft)
    except AppError as error:
        with state.database.write() as session:
            advance.fail_drawing(session, sweep_id, error)
        return
    with state.database.write() as session:
        advance.start_drawing(session, planned, state.store)


def _measure(state: AppState, sweep_id: int, args: AdvanceSweepArgs, style: Style) -> None:
    stage, scores = Stage(args.stage), []
    with state.database.write() as session:
        for column, (key, step) in enumerate(zip(args.run_ids, args.steps, strict=True), start=1):
            run = session.get_one(Run, key)
            place, seed = run.sweep_place or 0, run.config["seed"]
            value = style(stage, place, seed)
            ruined = "ruined: farther from the style than the base model" if value < 0 else ""
            parts = tuple(value + 0.01 * (number % 2) for number in range(len(args.prompts)))
            scores.append(
                Score(
                    run_id=key,
                    place=place,
                    seed=seed,
                    step=step,
                    style=value,
                    parts=parts,
                    adherence=0.9,
                    ruined=ruined,
                    grid_id=args.grid_id,
                    column=column,
                )
            )
        advance.add_scores(session, sweep_id, stage, scores, eyes="Test eyes")


def run_to_the_end(state: AppState, style: Style, **how: Any) -> None:
    """Train, draw and measure until nothing is left to do."""
    work(state, style)
    while train(state, **how):
        work(state, style)


def read(state: AppState, sweep_id: int) -> Sweep:
    """The sweep as it is now."""
    with state.database.read() as session:
        return service.get_sweep(session, sweep_id)
