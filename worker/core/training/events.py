"""What a training tells while it runs, and what it may be told."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Phase(StrEnum):
    """What the training is busy with."""

    PREPARING = "preparing"
    ENCODING = "encoding"
    TRAINING = "training"
    SAMPLING = "sampling"
    SAVING = "saving"


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """The training turned to something else."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """How much is trained of how much, known before the first step."""

    trainable_parameters: int
    base_parameters: int


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How this training computes, known before the first step: on a CPU both decide the last bits.

    A run that goes on elsewhere is given it, so that it ends in the very same numbers.
    """

    precision: str
    threads: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One step changed the adapter. `steps_per_second` looks over the last steps only."""

    step: int
    total: int
    loss: float
    learning_rate: float
    steps_per_second: float


@dataclass(frozen=True, slots=True)
class SampleSaved:
    """A sample picture is on disk; step 0 is the base without the adapter."""

    step: int
    prompt_index: int
    prompt: str
    seed: int
    path: Path


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A complete checkpoint folder is on disk, and a run can go on from it."""

    step: int
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well held-out pictures are predicted, with the interval of 95 %; step 0 is the base."""

    step: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The training went back to what it was after `step` and goes on from there."""

    step: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know that stops nothing; a warning is to be shown loudly."""

    text: str
    is_warning: bool = False


Event = (
    PhaseStarted
    | BaseFacts
    | Arithmetic
    | StepDone
    | HeldOut
    | RolledBack
    | SampleSaved
    | CheckpointSaved
    | Notice
)


class Control(StrEnum):
    """What the training should do next."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    STOP_AND_KEEP = "stop_and_keep"
    SAVE_AND_EXIT = "save_and_exit"


@dataclass(frozen=True, slots=True)
class Commands:
    """One answer of `poll`; `sample_now` and `save_now` are true once for each request."""

    control: Control = Control.CONTINUE
    sample_now: bool = False
    save_now: bool = False


class Callbacks(Protocol):
    """How a training talks with whoever started it; both are called from the training's thread."""

    def on_event(self, event: Event) -> None:
        """Take note of an event; an exception here ends the training."""

    def poll(self) -> Commands:
        """Give what was asked since the last call; called before each step and within sampling."""


class Silent:
    """Callbacks that hear nothing and ask for nothing."""

    def on_event(self, event: Event) -> None:
        """Ignore the event."""

    def poll(self) -> Commands:
        """Always go on."""
        return Commands()
