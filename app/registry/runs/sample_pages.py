"""The samples and checkpoints of a run, a page of steps at a time."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.runs.checkpoints import checkpoint_steps
from app.registry.tables.runs import Sample

STEPS_A_PAGE = 24


@dataclass(frozen=True)
class SamplePage:
    """Samples of the newest steps before a step, and of step 0, which is the base model.

    `steps`: those with samples or a checkpoint, the newest first, without the base model. `older`:
    the step to pass as `before` for the next page; None on the last one.
    """

    steps: list[int]
    samples: list[Sample]
    before: int | None
    older: int | None


@dataclass(frozen=True)
class MarkedStep:
    """A step of a run with samples, a checkpoint or both."""

    step: int
    has_samples: bool


def list_marked_steps(session: Session, run_id: int) -> list[MarkedStep]:
    """All steps with samples or a checkpoint in their order, without the base model."""
    samples = sa.select(col(Sample.step)).where(col(Sample.run_id) == run_id).distinct()
    sampled = set(session.connection().execute(samples).scalars())
    saved = session.connection().execute(sa.union(*checkpoint_steps(run_id))).scalars()
    return [MarkedStep(step, step in sampled) for step in sorted({*sampled, *saved} - {0})]


def list_sample_page(
    session: Session, run_id: int, *, before: int | None = None, size: int = STEPS_A_PAGE
) -> SamplePage:
    """A page of the samples and checkpoints of a run, by step and prompt."""
    steps = sa.union(
        sa.select(col(Sample.step).label("step")).where(
            col(Sample.run_id) == run_id, col(Sample.step) > 0
        ),
        *checkpoint_steps(run_id),
    ).subquery()
    query = sa.select(steps.c.step).order_by(steps.c.step.desc()).limit(size + 1)
    if before is not None:
        query = query.where(steps.c.step < before)
    newest = list(session.connection().execute(query).scalars())
    shown = newest[:size]
    samples = select(Sample).where(Sample.run_id == run_id, col(Sample.step).in_([0, *shown]))
    return SamplePage(
        shown,
        list(session.exec(samples.order_by(col(Sample.step), col(Sample.prompt_index)))),
        before=before,
        older=newest[size - 1] if len(newest) > size else None,
    )
