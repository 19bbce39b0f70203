"""Two steps of a run side by side: the samples of the same prompts and seeds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.comparison.side_by_side import SideBySide, pair_samples
from app.registry.errors import NotFound
from app.registry.runs import checkpoints, service
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.tables.runs import Run, Sample


@dataclass(frozen=True)
class ComparedStep:
    """A step of a run that has samples; 0 is the base model. `checkpoint`: if it is stored."""

    step: int
    checkpoint: RunCheckpoint | None

    @property
    def label(self) -> str:
        """The displayed name, such as “Step 150”."""
        return f"Step {self.step:,}" if self.step else "Base model"

    @property
    def option(self) -> str:
        """The label with what is known of the checkpoint, for a list to choose from."""
        row = self.checkpoint
        marks = {
            "in use": row is not None and row.is_in_use,
            "kept": row is not None and row.kept,
            "no checkpoint": row is None and self.step > 0,
        }
        return ", ".join([self.label, *(word for word, holds in marks.items() if holds)])


@dataclass(frozen=True, kw_only=True)
class TwoSteps(SideBySide[ComparedStep]):
    """Two steps of a run, and all steps to choose from; with a single one both are the same."""

    run: Run
    steps: list[ComparedStep]


def compare_steps(
    session: Session, run_id: int, a: int | None = None, b: int | None = None
) -> TwoSteps:
    """Compare two steps; by default the newest with the one before it. Raises NotFound."""
    run = service.get_run(session, run_id)
    sampled = select(Sample.step).where(Sample.run_id == run_id).distinct()
    found = session.exec(sampled.order_by(col(Sample.step).desc())).all()
    if not found:
        raise NotFound("This run has no samples, so there is nothing to compare.")
    stored = {row.step: row for row in checkpoints.list_checkpoints(session, run_id)}
    steps = {step: ComparedStep(step, stored.get(step)) for step in found}
    second = _step_at(steps, b, next(iter(steps)))
    others = [step for step in steps if step != second.step] or [second.step]
    earlier = [step for step in others if step < second.step]
    first = _step_at(steps, a, (earlier or others)[0])
    samples = [step_samples(session, run_id, one.step) for one in (first, second)]
    return TwoSteps(
        run=run,
        steps=list(steps.values()),
        a=first,
        b=second,
        a_label=first.label,
        b_label=second.label,
        pairs=pair_samples(*samples),
    )


def _step_at(steps: dict[int, ComparedStep], step: int | None, usual: int) -> ComparedStep:
    number = usual if step is None else step
    if number not in steps:
        raise NotFound(f"This run has no samples at step {number:,}. Choose another step.")
    return steps[number]


def step_samples(session: Session, run_id: int, step: int) -> list[Sample]:
    """The samples of a step, by prompt."""
    query = select(Sample).where(Sample.run_id == run_id, Sample.step == step)
    return list(session.exec(query.order_by(col(Sample.prompt_index))))
