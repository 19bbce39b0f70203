"""The length of a training stage: a number of steps, or a number of minutes."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

WARMUP = 0.03
"""Share of a stage in which the learning rate rises to its maximum."""

REPORT_SECONDS = 20.0


@dataclass(frozen=True)
class Pace:
    """The length of one stage; set exactly one of the two."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self) -> Iterator[float]:
        """The completed share of the stage in [0, 1), once per step."""
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("Set either steps or minutes, not both.")
        started, step, share = time.monotonic(), 0, 0.0
        while share < 1:
            yield share
            step += 1
            if self.steps is not None:
                share = step / self.steps
            else:
                share = (time.monotonic() - started) / (60 * (self.minutes or 1))


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
