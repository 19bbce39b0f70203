"""Deletes sweeps with their runs, and all runs of a sweep but those of the winner."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.blobs.deletion import Deletion
from app.registry.db import utcnow
from app.registry.deletion import renders, runs
from app.registry.deletion.lists import deleted_row, restore
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.sweeps.records import read_plan, read_result
from app.registry.sweeps.service import get_sweep, runs_of
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Grid, drawn_by_sweeps
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Sweep


def discard_sweep(session: Session, sweep_id: int) -> Sweep:
    """Delete a sweep with its runs until it is restored; versions made from them stay.

    Raises NotFound, and Conflict if it has not ended, or if a job needs a checkpoint.
    """
    sweep = _ended(session, sweep_id)
    sweep.deleted_at = utcnow()
    for run in runs_of(session, sweep):
        runs.discard_run(session, run.key)
    session.add(sweep)
    session.flush()
    return sweep


def restore_sweep(session: Session, sweep_id: int) -> Sweep:
    """Undo `discard_sweep`; runs that were deleted before it stay so."""
    with deleted_too(session):
        sweep = get_sweep(session, sweep_id, lock=True)
        moment = sweep.deleted_at
        for run in runs_of(session, sweep):
            if moment and run.deleted_at and run.deleted_at >= moment:
                runs.restore_run(session, run.key)
        return restore(session, Sweep, sweep_id)


def delete_sweep(session: Session, sweep_id: int) -> Deletion:
    """Delete a deleted sweep for good, with its runs and images. Raises Conflict before."""
    with deleted_too(session):
        sweep = deleted_row(session, Sweep, sweep_id)
        keys = [run.key for run in runs_of(session, sweep)]
        deletion = runs.delete_runs(session, keys) if keys else Deletion("")
        drawn = col(Grid.id).in_(drawn_by_sweeps(col(IoJob.subject_id) == sweep_id))
        title = f"the sweep “{sweep.title}”"
        deletion.include(renders.delete_grids_with_images(session, drawn, title=title))
        session.connection().execute(sa.delete(Sweep).where(col(Sweep.id) == sweep_id))
    return replace(deletion, title=title)


def delete_sweep_others(session: Session, sweep_id: int, kept: int | None = None) -> Deletion:
    """Delete all runs of a sweep for good but those of the winner; what was measured stays.

    `kept`: the place of another configuration to keep. Raises Conflict before the end, InvalidInput
    where there is no winner and none is named, and NotFound if nothing is left to delete.
    """
    sweep = _ended(session, sweep_id)
    plan = read_plan(sweep)
    place = read_result(sweep).winner if kept is None else kept
    if place is None or not 0 <= place < len(plan.configurations):
        most = len(plan.configurations) - 1
        raise invalid_field("kept", f"Name the configuration to keep: a number from 0 to {most}.")
    others = [run.key for run in runs_of(session, sweep) if run.sweep_place != place]
    if not others:
        raise NotFound("All other runs of this sweep were deleted already.")
    deletion = runs.delete_runs(session, others)
    name = plan.configurations[place].name
    stays = [f"The runs of {name} stay, and what was measured of all.", *deletion.stays]
    title = f"all runs of “{sweep.title}” but those of {name}"
    return replace(deletion, title=title, stays=stays)


def _ended(session: Session, sweep_id: int) -> Sweep:
    sweep = get_sweep(session, sweep_id, lock=True)
    if not sweep.state.is_final:
        raise Conflict(f"The sweep “{sweep.title}” has not ended. Cancel it first, then delete.")
    return sweep
