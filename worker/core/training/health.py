"""Measures on fixed images how a training is doing, at each checkpoint and when it seems worse."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from worker.core.training.adapter.lora import Lora
from worker.core.training.data.validation import ValidationSet
from worker.core.training.events import Event, FixedLoss
from worker.core.training.learner import Learner
from worker.core.training.ruined import FixedLosses

FIRST_LOSSES = RECENT_LOSSES = 10
SUSPICIOUS = 1.5  # times the mean of the first losses
STEPS_BETWEEN_LOOKS = 25


class TrainingHealth:
    """`losses` of the fixed images by step, step 0 being the base model; `guess` is that of a model
    that always predicts zero."""

    def __init__(
        self, learner: Learner, lora: Lora, fixed: ValidationSet, emit: Callable[[Event], None]
    ) -> None:
        self.losses: dict[int, FixedLosses] = {}
        self.guess = math.inf
        self._learner = learner
        self._lora = lora
        self._fixed = fixed
        self._emit = emit
        self._watch = LossWatch()

    def after_step(self, step: int, loss: float) -> None:
        """Note the training loss of a step; measure the base model once, and a suspected rise.

        The base model waits for the first step, so that a person sees progress early.
        """
        if 0 not in self.losses:
            with self._lora.disabled():
                self._record(0)
        if self._watch.add(step, loss):
            self.measure(step)

    def measure(self, step: int) -> None:
        """Measure the adapter of this step, once."""
        if step not in self.losses:
            with self._learner.averaged():
                self._record(step)

    def _record(self, step: int) -> None:
        errors = self._learner.prediction_errors(self._fixed)
        self.guess = fmean(error.guess for error in errors)
        losses = self.losses[step] = FixedLosses.of(errors)
        base = self.losses.get(0, losses)
        self._emit(
            FixedLoss(
                step,
                losses.mean,
                base.mean,
                losses.rise(base),
                is_high=losses.is_worse(base),
            )
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next measurement and the verdict depend on."""
        losses = {step: list(found.quarters) for step, found in self.losses.items()}
        return {"losses": losses, "guess": self.guess, "watch": self._watch.state()}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go back to a state; None: nothing was measured."""
        losses = state["losses"] if state else {}
        self.losses = {step: FixedLosses(tuple(quarters)) for step, quarters in losses.items()}
        self.guess = float(state["guess"]) if state else math.inf
        self._watch = LossWatch()
        if state:
            self._watch.load(state["watch"])


class LossWatch:
    """The training loss, from which a rise is suspected: then the fixed images are measured.

    The loss of a step depends on its images and noise, so that it alone proves nothing.
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=RECENT_LOSSES)
        self._looked_at = -STEPS_BETWEEN_LOOKS

    def add(self, step: int, loss: float) -> bool:
        """Add the loss of a step; True when the fixed images should be measured now."""
        if len(self._first) < FIRST_LOSSES:
            self._first.append(loss)
            return False
        self._recent.append(loss)
        if len(self._recent) < RECENT_LOSSES or step - self._looked_at < STEPS_BETWEEN_LOOKS:
            return False
        first, recent = sum(self._first) / FIRST_LOSSES, sum(self._recent) / RECENT_LOSSES
        if recent <= SUSPICIOUS * first:
            return False
        self._looked_at = step
        return True

    def state(self) -> dict[str, Any]:
        """Everything that the next look depends on."""
        return {
            "first": list(self._first),
            "recent": list(self._recent),
            "looked_at": self._looked_at,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self._first = list(state["first"])
        self._recent = deque(state["recent"], maxlen=RECENT_LOSSES)
        self._looked_at = int(state["looked_at"])
