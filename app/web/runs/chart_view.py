"""The chart of a run, as rows and sentences: for its table, its description, and its marks."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.runs.progress import HELD_OUT, values_of
from app.registry.wording import rate_text

LEARNING_RATE = "learning_rate"
CHART_METRICS = ("loss", LEARNING_RATE, *HELD_OUT)
SMOOTHING = 0.95
TABLE_ROWS = 20
MARKS = 48  # the page shows those that fit

Row = TypeVar("Row")


@dataclass(frozen=True)
class LossRow:
    """The loss at one step, raw and smoothed, and the learning rate, if it was recorded."""

    step: int
    raw: float
    smoothed: float
    rate: float | None


@dataclass(frozen=True)
class ValidationRow:
    """Validation loss at a step, with its 95 % confidence interval."""

    step: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Mark:
    """A step with samples, a checkpoint or both; `is_on_page`: its row is on this page."""

    step: int
    has_samples: bool
    checkpoint: RunCheckpoint | None
    is_on_page: bool

    @property
    def label(self) -> str:
        """The step and what there is of it."""
        saved = self.checkpoint
        if saved is None:
            return f"Step {self.step:,}, samples"
        what = "samples and checkpoint" if self.has_samples else "checkpoint without samples"
        if saved.is_in_use:
            return f"Step {self.step:,} in use, {what}"
        return f"Step {self.step:,}, {what}{', kept by you' if saved.kept else ''}"


@dataclass(frozen=True)
class Chart:
    """The content of the chart of a run.

    `rows`: about twenty steps with their losses; `rates`: the learning rate of all steps.
    """

    rows: list[LossRow]
    held_out: list[ValidationRow]
    rates: dict[int, float]
    marks: list[Mark]

    @property
    def last_step(self) -> int:
        """The last step with a loss."""
        return self.rows[-1].step if self.rows else 0

    @property
    def has_rates(self) -> bool:
        """True if the learning rate was recorded."""
        return bool(self.rates)

    @property
    def held_out_rows(self) -> list[ValidationRow]:
        """The validation losses of the table."""
        return thin_out(self.held_out)

    @property
    def loss_sentence(self) -> str:
        """Change of the smoothed loss, in one sentence."""
        if not self.rows:
            return "The loss appears after the first steps."
        first, last = self.rows[0], self.rows[-1]
        if first is last:
            return f"Loss {last.smoothed:.3f} at step {last.step:,}."
        moved = "fell" if last.smoothed < first.smoothed else "rose"
        return (
            f"Smoothed loss {moved} from {first.smoothed:.3f} at step {first.step:,} "
            f"to {last.smoothed:.3f} at step {last.step:,}."
        )

    @property
    def rate_sentence(self) -> str:
        """Course of the learning rate, in one sentence; empty if it was not recorded."""
        if not self.rates:
            return ""
        last = max(self.rates)
        highest = max(self.rates, key=lambda step: self.rates[step])
        if len(set(self.rates.values())) == 1:
            return f"Learning rate {rate_text(self.rates[last])} at every step."
        if highest == last:
            return f"Learning rate {rate_text(self.rates[last])} at step {last:,}, its highest."
        return (
            f"Learning rate {rate_text(self.rates[last])} at step {last:,}; "
            f"highest {rate_text(self.rates[highest])} at step {highest:,}."
        )

    @property
    def held_out_sentence(self) -> str:
        """Change of the validation loss, in one sentence; empty without validation images."""
        if not self.held_out:
            return ""
        first, last = self.held_out[0], self.held_out[-1]
        best = min(self.held_out, key=lambda row: row.loss)
        if first is last:
            return f"Validation loss {last.loss:.3f} at step {last.step:,}."
        return (
            f"Validation loss {first.loss:.3f} at step {first.step:,}, {last.loss:.3f} at step "
            f"{last.step:,}; lowest {best.loss:.3f} at step {best.step:,}."
        )

    @property
    def marks_token(self) -> str:
        """Changes with the marks."""
        labels = "|".join(f"{mark.label} {mark.is_on_page}" for mark in self.marks)
        return f"{zlib.crc32(labels.encode()):x}"


def chart_of(metrics: dict[str, Any], marks: list[Mark]) -> Chart:
    """The chart of these metrics (`service.run_metrics`) with these marks."""
    rates = values_of(metrics, LEARNING_RATE)
    return Chart(_loss_rows(values_of(metrics, "loss"), rates), _held_out(metrics), rates, marks)


def marks_of(
    marked: Sequence[tuple[int, bool]], saved: Sequence[RunCheckpoint], *, on_page: Collection[int]
) -> list[Mark]:
    """Marks of these steps, with what is saved at each."""
    found = {row.step: row for row in saved}
    return [Mark(step, sampled, found.get(step), step in on_page) for step, sampled in marked]


def thin_out(rows: Sequence[Row], *, most: int = TABLE_ROWS) -> list[Row]:
    """About `most` of these at most, evenly spaced, including the first and the last."""
    kept = list(rows[:: max(1, -(-len(rows) // most))])
    return kept if not rows or kept[-1] is rows[-1] else [*kept, rows[-1]]


def _loss_rows(losses: dict[int, float], rates: dict[int, float]) -> list[LossRow]:
    """About twenty rows of the loss with its debiased moving average, including the last step."""
    average, weight = 0.0, 0.0
    rows = []
    for step, value in losses.items():
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        rows.append(LossRow(step, value, average / weight, rates.get(step)))
    return thin_out(rows)


def _held_out(metrics: dict[str, Any]) -> list[ValidationRow]:
    low, high = values_of(metrics, HELD_OUT[1]), values_of(metrics, HELD_OUT[2])
    return [
        ValidationRow(step, loss, low[step], high[step])
        for step, loss in values_of(metrics, HELD_OUT[0]).items()
        if step in low and step in high
    ]
