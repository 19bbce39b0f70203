"""The ways in which a training ends."""

from enum import StrEnum

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
