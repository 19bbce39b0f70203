"""Two steps of a run side by side: the samples of the same prompts and seeds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

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
        """What it is called, such as “Step 150”."""
        return f"Step {self.step:,}" if self.step else "Base model"

    @property
    def option(self) -> str:
        """The label with what is known of the checkpoint, for a list to choose from."""
        row = self.checkpoint
        marks = [
            word
            for word, holds in (
                ("in use", row is not None and row.is_in_use),
                ("kept", row is not None and row.kept),
                ("no checkpoint", row is None and self.step > 0),
            )
            if holds
        ]
        return ", ".join([self.label, *marks])


@dataclass(frozen=True)
class SamplePair:
    """The samples of one prompt at both steps; None where there is none."""

    prompt: str
    seed: int
    a: Sample | None
    b: Sample | None


@dataclass(frozen=True)
class RunComparison:
    """Two steps of a run, with their samples prompt by prompt, and all steps to choose from.

    With a single step there is nothing to compare: both sides are the same.
    """

    run: Run
    steps: list[ComparedStep]
    a: ComparedStep
    b: ComparedStep
    pairs: list[SamplePair]


def compare_steps(
    session: Session, run_id: int, a: int | None = None, b: int | None = None
) -> RunComparison:
    """Compare two steps; by default the newest with the one before it. Raises NotFound."""
    run = service.get_run(session, run_id)
    sampled = select(Sample.step).where(Sample.run_id == run_id).distinct()
    found = session.exec(sampled.order_by(col(Sample.step).desc())).all()
    if not found:
        raise NotFound("This run has no samples, so there is nothing to compare.")
    stored = {row.step: row for row in checkpoints.list_checkpoints(session, run_id)}
    steps = {step: ComparedStep(step, stored.get(step)) for step in found}
    second = _chosen(steps, b, next(iter(steps)))
    others = [step for step in steps if step != second.step] or [second.step]
    earlier = [step for step in others if step < second.step]
    first = _chosen(steps, a, (earlier or others)[0])
    return RunComparison(
        run, list(steps.values()), first, second, _pairs(session, run_id, first.step, second.step)
    )


def _chosen(steps: dict[int, ComparedStep], step: int | None, usual: int) -> ComparedStep:
    number = usual if step is None else step
    if number not in steps:
        raise NotFound(f"This run has no samples at step {number:,}. Choose another step.")
    return steps[number]


def _pairs(session: Session, run_id: int, a: int, b: int) -> list[SamplePair]:
    query = select(Sample).where(Sample.run_id == run_id, col(Sample.step).in_([a, b]))
    rows: dict[int, dict[int, Sample]] = {}
    for sample in session.exec(query.order_by(col(Sample.prompt_index))):
        rows.setdefault(sample.prompt_index, {})[sample.step] = sample
    pairs = []
    for found in rows.values():
        known = next(iter(found.values()))
        pairs.append(SamplePair(known.prompt, known.seed, found.get(a), found.get(b)))
    return pairs
