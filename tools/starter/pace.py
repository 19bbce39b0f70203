"""The length of a training stage: a number of steps, or a number of minutes."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WARMUP = 0.03
"""Share of a stage in which the learning rate rises to its maximum."""

REPORT_SECONDS = 20.0


@dataclass(frozen=True)
class Pace:
    """The length of one stage; set exactly one of the two."""

    steps: int | None = None
    minutes: float | None = None


class Progress:
    """The completed share of a stage, which goes on where an interrupted one stopped."""

    def __init__(self, pace: Pace, *, step: int = 0, seconds: float = 0.0) -> None:
        if (pace.steps is None) == (pace.minutes is None):
            raise ValueError("Set either steps or minutes, not both.")
        self.pace = pace
        self.step, self.seconds = step, seconds

    def __iter__(self) -> Iterator[float]:
        """The completed share in [0, 1), once per step; `step` counts the finished ones."""
        started = time.monotonic() - self.seconds
        while (share := self.share) < 1:
            yield share
            self.step += 1
            self.seconds = time.monotonic() - started

    @property
    def share(self) -> float:
        """The completed share; 1 or more when the stage is finished."""
        if self.pace.steps is not None:
            return self.step / self.pace.steps
        return self.seconds / (60 * (self.pace.minutes or 1))


def rate_factor(share: float) -> float:
    """The factor of the learning rate: a short warm-up, then a cosine down to 1 %."""
    rise = min(1.0, (share + 1e-3) / WARMUP)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Journal:
    """The losses of one stage, printed about three times a minute."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.losses: list[float] = []
        self._reported = time.monotonic()

    def note(self, loss: float, share: float) -> None:
        """Record the loss of a step; FloatingPointError when the training has diverged."""
        if not math.isfinite(loss):
            raise FloatingPointError(f"The {self.stage} diverged: its loss is {loss}.")
        self.losses.append(loss)
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            recent = self.losses[-50:]
            mean = sum(recent) / len(recent)
            print(
                f"{self.stage}: {share:4.0%}, {len(self.losses)} steps, loss {mean:.4f}", flush=True
            )

    def state_dict(self) -> dict[str, Any]:
        """The losses so far, for a checkpoint."""
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the losses of an interrupted stage."""
        self.losses = list(state["losses"])
