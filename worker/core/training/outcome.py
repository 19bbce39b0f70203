"""The ways in which a training ends, and its result."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.core.training.events import Control


class Outcome(StrEnum):
    """The end of a training."""

    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELED = "canceled"
    INTERRUPTED = "interrupted"


OUTCOMES = {
    Control.CANCEL: Outcome.CANCELED,
    Control.STOP_AND_KEEP: Outcome.STOPPED,
    Control.SAVE_AND_EXIT: Outcome.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: why the result is ruined, as sentences; None if it is not.

    `good_steps`: the checkpoints that were not worse than the base model, newest first.
    """

    reason: str | None
    good_steps: tuple[int, ...] = ()


NOT_RUINED = Verdict(None)


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """The result of a training, which its trainer also sends to the worker.

    `path` is the canonical adapter file, or None when there is none: after a cancel, a stop before
    the first step, or an interruption (which can be resumed from its checkpoint). `verdict` says
    whether it is ruined.
    """

    path: Path | None
    steps: int
    outcome: Outcome
    trainable_parameters: int
    base_parameters: int
    peak_memory_bytes: int
    seconds: float
    verdict: Verdict = NOT_RUINED
