"""The samples of a run, a page of steps at a time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.runs.models import Sample

STEPS_A_PAGE = 24


@dataclass(frozen=True)
class SamplePage:
    """Samples of the newest steps before a step, and of step 0, which is the base model.

    `older`: the step to pass as `before` for the next page; None on the last one.
    """

    samples: list[Sample]
    before: int | None
    older: int | None


def list_sample_page(
    session: Session, run_id: int, *, before: int | None = None, size: int = STEPS_A_PAGE
) -> SamplePage:
    """A page of the samples of a run, by step and prompt."""
    steps = select(Sample.step).where(Sample.run_id == run_id, col(Sample.step) > 0).distinct()
    if before is not None:
        steps = steps.where(col(Sample.step) < before)
    newest = session.exec(steps.order_by(col(Sample.step).desc()).limit(size + 1)).all()
    shown = [0, *newest[:size]]
    query = select(Sample).where(Sample.run_id == run_id, col(Sample.step).in_(shown))
    return SamplePage(
        list(session.exec(query.order_by(col(Sample.step), col(Sample.prompt_index)))),
        before=before,
        older=newest[size - 1] if len(newest) > size else None,
    )
