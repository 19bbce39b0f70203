"""Sweeps that exist: start, look up, pause, resume and cancel them, use what they found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import Any

from sqlmodel import Session, col, select

from app.registry.adapters.service import UsedVersion
from app.registry.datasets.used_datasets import regularization_dataset, used_datasets
from app.registry.db import database_now
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.job_kinds.kinds import AdvanceSweepArgs, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import quotas
from app.registry.jobs import service as jobs
from app.registry.renders.grids import service as grids
from app.registry.runs import checkpoints
from app.registry.runs import service as runs
from app.registry.runs.requests import RunRequest, create_run
from app.registry.runs.rerun import queue_like
from app.registry.runs.settings import config_differences
from app.registry.runs.several_datasets import DatasetWish
from app.registry.sweeps.plan import INCOMPARABLE, OTHER_RUN, PlannedSweep, SweepRequest
from app.registry.sweeps.records import Score, SweepPlan, SweepResult, read_plan, read_result
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run, Stage, Sweep
from app.registry.validation import MAX_NAME
from app.registry.wording import join_words
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset

UNKNOWN = "There is no such sweep; it may have been deleted."
MOST_SEEDS_ADDED = 16
SHARED: dict[str, Callable[[RunRequest], object]] = {
    "base model": attrgetter("base_model"),
    "datasets": attrgetter("wishes"),
    "trigger word": attrgetter("trigger_word"),
    "regularization images": attrgetter("regularization_dataset_id"),
}
"""What two runs must share for a sweep between them."""


def create_sweep(session: Session, planned: PlannedSweep) -> Sweep:
    """Queue all runs of a planned sweep. Raises like `create_run`, which checks each again."""
    plan = planned.plan
    stage = Stage.HALF if plan.halves else Stage.FULL
    sweep = Sweep(title=planned.title, stage=stage, plan=plan.model_dump(mode="json"))
    sweep.created_at = database_now(session)
    session.add(sweep)
    session.flush()
    for (place, seed), request in planned.runs.items():
        run = create_run(session, replace(request, name=_name(sweep, plan, place, seed)))
        run.sweep_id, run.sweep_place = sweep.key, place
        run.pause_at = run.total_steps // 2 if plan.halves else None
        session.add(run)
    everything = tuple(range(len(plan.configurations)))
    save_result(session, sweep, SweepResult(going=() if plan.halves else everything))
    return sweep


def repeat_run(session: Session, sweep: Sweep, place: int, seed: int) -> Run:
    """Queue a run like the first one of a configuration, on the same images, with another seed.

    Raises Conflict if its runs were deleted.
    """
    plan = read_plan(sweep)
    first = next((run for run in runs_of(session, sweep) if run.sweep_place == place), None)
    if first is None:
        raise Conflict(f"All runs of {plan.configurations[place].name} were deleted.")
    return queue_like(
        session,
        first,
        name=_name(sweep, plan, place, seed),
        config={**first.config, "seed": seed},
        total_steps=first.total_steps,
        sweep_id=sweep.key,
        sweep_place=place,
    )


def _name(sweep: Sweep, plan: SweepPlan, place: int, seed: int) -> str:
    """The name of a run."""
    words = f", seed {seed}"
    return f"{sweep.title}: {plan.configurations[place].name}"[: MAX_NAME - len(words)] + words


def get_sweep(session: Session, sweep_id: int, *, lock: bool = False) -> Sweep:
    """Look up a sweep. Raises NotFound."""
    sweep = session.get(Sweep, sweep_id, with_for_update=lock or None, populate_existing=lock)
    if sweep is None:
        raise NotFound(UNKNOWN)
    return sweep


def list_sweeps(session: Session, *, limit: int, before: int | None = None) -> list[Sweep]:
    """The newest sweeps; `before`: with lower ids."""
    query = select(Sweep).order_by(col(Sweep.id).desc()).limit(limit)
    return list(session.exec(query if before is None else query.where(col(Sweep.id) < before)))


def runs_of(session: Session, sweep: Sweep) -> list[Run]:
    """The runs of a sweep that are there, in the order they were queued."""
    return list(session.exec(select(Run).where(Run.sweep_id == sweep.key).order_by(col(Run.id))))


def save_result(session: Session, sweep: Sweep, result: SweepResult, **changes: Any) -> SweepResult:
    """Write the result of a sweep, with these changes."""
    result = result.model_copy(update=changes)
    sweep.result = result.model_dump(mode="json")
    session.add(sweep)
    session.flush()
    return result


def measuring(session: Session, sweep_id: int) -> IoJob | None:
    """The newest job that draws and measures images of a sweep; None if there was none."""
    of_sweep = (IoJob.kind == JobKind.ADVANCE_SWEEP, IoJob.subject_id == sweep_id)
    drawing = col(IoJob.args)["grid_id"].as_integer() > 0
    query = select(IoJob).where(*of_sweep, drawing).order_by(col(IoJob.id).desc())
    return session.exec(query.limit(1)).first()


def pause_sweep(session: Session, sweep_id: int) -> Sweep:
    """Hold back the runs that wait; what runs goes on. Idempotent. Raises Conflict once ended."""
    sweep = _active(session, sweep_id)
    sweep.status = JobStatus.PAUSED
    session.add(sweep)
    for run in runs_of(session, sweep):
        jobs.transition(session, Run, run.key, old=JobStatus.QUEUED, new=JobStatus.PAUSED)
    session.expire_all()
    return sweep


def resume_sweep(session: Session, sweep_id: int) -> Sweep:
    """Go on with a sweep that is paused, or that failed to measure.

    Raises Conflict otherwise, and QuotaUsedUp.
    """
    sweep = get_sweep(session, sweep_id, lock=True)
    if sweep.state in (JobStatus.SUCCEEDED, JobStatus.CANCELED):
        raise Conflict(f"This sweep {runs.STATUS_PHRASES[sweep.state]}, so it cannot go on.")
    job = measuring(session, sweep.key)
    if sweep.state is JobStatus.FAILED and job is not None:
        save_result(session, sweep, read_result(sweep), retried=job.key)
    sweep.status, sweep.error, sweep.finished_at = JobStatus.RUNNING, None, None
    session.add(sweep)
    for run in runs_of(session, sweep):
        if run.pause_at is None or run.step < run.pause_at:
            quotas.take_place(session, run)
            jobs.transition(session, Run, run.key, old=JobStatus.PAUSED, new=JobStatus.QUEUED)
    session.expire_all()
    jobs.enqueue_io(session, AdvanceSweepArgs(), subject_id=sweep.key)
    return sweep


def cancel_sweep(session: Session, sweep_id: int) -> Sweep:
    """Cancel a sweep, its runs and the images to come; idempotent. Raises Conflict once ended.

    What its runs have saved stays.
    """
    sweep = get_sweep(session, sweep_id, lock=True)
    if sweep.state is JobStatus.CANCELED:
        return sweep
    if sweep.state is not JobStatus.FAILED:  # its runs wait for somebody to let it go on
        _active(session, sweep_id)
    sweep.status, sweep.finished_at = JobStatus.CANCELED, database_now(session)
    session.add(sweep)
    for run in runs_of(session, sweep):
        if not run.state.is_final:
            jobs.request_cancel(session, Run, run)
    job = measuring(session, sweep.key)
    if job is not None and not job.state.is_final:
        jobs.request_cancel(session, IoJob, job)
        with suppress(Conflict, NotFound):  # all images are there, or the grid was deleted
            grids.cancel_grid(session, job.arguments(AdvanceSweepArgs).grid_id)
    session.flush()
    return sweep


def _active(session: Session, sweep_id: int) -> Sweep:
    sweep = get_sweep(session, sweep_id, lock=True)
    if sweep.state.is_final:
        raise Conflict(f"This sweep {runs.STATUS_PHRASES[sweep.state]} already.")
    return sweep


def add_seeds(session: Session, sweep_id: int, count: int) -> Sweep:
    """Train the configurations that could not be told apart with more seeds.

    Raises Conflict before the end, or if a winner was found.
    """
    sweep = get_sweep(session, sweep_id, lock=True)
    result = read_result(sweep)
    if not 1 <= count <= MOST_SEEDS_ADDED:
        raise invalid_field("seeds", f"Add 1 to {MOST_SEEDS_ADDED} seeds.")
    if sweep.state is not JobStatus.SUCCEEDED or result.found is None or result.winner is not None:
        raise Conflict("Seeds can be added once a sweep has ended without a winner.")
    going = result.found.equal if len(result.found.equal) > 1 else result.found.order[:2]
    used = {run.config["seed"] for run in runs_of(session, sweep)}
    new = next_seeds(used, count)
    for seed in new:
        for place in going:
            repeat_run(session, sweep, place, seed)
    sweep.status, sweep.stage, sweep.finished_at = JobStatus.RUNNING, Stage.FULL, None
    plan = read_plan(sweep)
    sweep.plan = plan.model_copy(update={"seeds": (*plan.seeds, *new)}).model_dump(mode="json")
    changes = {"going": tuple(going), "reason": "", "confirmation": None, "confirm_seed": None}
    save_result(session, sweep, result, **changes)
    return sweep


def next_seeds(used: set[int], count: int) -> list[int]:
    """So many seeds that were not used, the lowest first."""
    free = (seed for seed in range(len(used) + count + 1) if seed not in used)
    return [next(free) for _ in range(count)]


def use_configuration(session: Session, sweep_id: int, place: int | None = None) -> UsedVersion:
    """Make a version of the best run of a configuration, by default the winner.

    Raises Conflict without a winner, and NotFound for another place.
    """
    sweep = get_sweep(session, sweep_id, lock=True)
    plan, result = read_plan(sweep), read_result(sweep)
    place = result.winner if place is None else place
    if place is None:
        raise Conflict("This sweep has no winner. Name the configuration to use.")
    if not 0 <= place < len(plan.configurations):
        raise NotFound("This sweep has no such configuration.")
    best = best_score(result, place, {run.key for run in runs_of(session, sweep)})
    return checkpoints.use_checkpoint(session, best.run_id, best.step, name=plan.name)


def best_score(result: SweepResult, place: int, there: Collection[int]) -> Score:
    """That of the best run of a configuration, of the longest training; `there`: ids of its runs.

    Raises Conflict.
    """
    for stage in (Stage.FULL, Stage.HALF):
        scores = [
            one
            for one in result.scores.get(stage, ())
            if one.place == place and one.run_id in there and not one.ruined
        ]
        if scores:
            return max(scores, key=lambda one: one.style)
    raise Conflict("No run of this configuration can be used: it was not measured, or deleted.")


def best_references(
    session: Session, result: SweepResult, places: Sequence[int], there: Collection[int]
) -> list[str]:
    """The playground's names for the best run of each of these configurations that has one."""
    found = []
    for place in places:
        with suppress(Conflict):
            best = best_score(result, place, there)
            address = checkpoints.address_of(session, best.run_id)
            found += [f"{address.slug}@{best.step}:1"] if address else []
    return found


def sweep_between(session: Session, a: int, b: int) -> SweepRequest:
    """The sweep between two runs: its axes are the settings in which they differ.

    Raises InvalidInput if they differ in what a sweep cannot compare, or in nothing.
    """
    one, two = runs.get_run(session, a), runs.get_run(session, b)
    around, other = sweep_around(session, a), sweep_around(session, b)
    unlike = [words for words, get in SHARED.items() if get(around.run) != get(other.run)]
    if unlike:
        raise invalid_field("between", f"The runs differ in {join_words(unlike)}: {OTHER_RUN}")
    axes = {
        row.name: [row.a, row.b]
        for row in config_differences(one.config, two.config)
        if row.name not in INCOMPARABLE and row.name in TrainConfig.model_fields
    }
    if not axes:
        raise invalid_field("between", "They differ in no setting that a sweep can compare.")
    return replace(around, axes=axes)


def sweep_around(session: Session, run_id: int) -> SweepRequest:
    """A sweep whose configurations share the settings and datasets of a run; without axes yet."""
    one = runs.get_run(session, run_id)
    first, *further = (DatasetWish(used.id, used.repeats) for used in used_datasets(session, one))
    config = {name: value for name, value in one.config.items() if name in TrainConfig.model_fields}
    request = RunRequest(
        dataset_id=first.dataset_id,
        repeats=first.repeats,
        further=further,
        trigger_word=one.trigger_word or "",
        base_model=one.base_model_id,
        preset=Preset(one.preset) if one.preset in set(Preset) else Preset.BALANCED,
        name=one.name,
        config=config,
        regularization_dataset_id=regularization_dataset(session, one),
    )
    return SweepRequest(run=request)
