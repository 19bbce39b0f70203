"""The events of a running training, and the commands it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from worker.core.training.changes import Change, ChangeOrder

ADAPTER = "adapter.safetensors"  # in the folder of a checkpoint
ADAPTERS = "adapters"  # folder of all adapters, beside those of the checkpoints


class Phase(StrEnum):
    """The current activity of the training."""

    PREPARING = "preparing"
    ENCODING = "encoding"
    TRAINING = "training"
    SAMPLING = "sampling"
    SAVING = "saving"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """The training entered a phase."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """The number of trained and of all parameters, known before the first step.

    `layers` have an adapter, of `all_layers` of the base that could have one.
    """

    trainable_parameters: int
    base_parameters: int
    layers: int = 0
    all_layers: int = 0


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The arithmetic of a training, known before the first step; on a CPU it affects the last bits.

    A run that continues elsewhere gets the same values, so that it ends with the same numbers.
    """

    precision: str
    threads: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step updated the adapter. `steps_per_second` covers the last few steps."""

    step: int
    total: int
    loss: float
    learning_rate: float
    steps_per_second: float


@dataclass(frozen=True, slots=True)
class SampleSaved:
    """A sample image was saved; step 0 shows the base without the adapter."""

    step: int
    prompt_index: int
    prompt: str
    seed: int
    path: Path


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A complete checkpoint folder was saved; a run can continue from it.

    `is_requested`: it was asked for. If it exists already, it is reported a second time. `best`:
    the step that is closest to the style so far, whose checkpoint stays; None: it is not measured.
    """

    step: int
    path: Path
    size_bytes: int
    is_requested: bool = False
    best: int | None = None


@dataclass(frozen=True, slots=True)
class ValidationDone:
    """The validation loss with the 95 % interval of its change; step 0 is the base model.

    The change is since the measurement before, as in `ValidationLoss`.
    """

    step: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FixedLoss:
    """The loss on the fixed images, with that of the base model; step 0 is the base model.

    `rise`: how many times the base model's loss it is, at the noise levels where that is most.
    `is_high`: it is clearly above the base model's, so the training seems to be ruined.
    """

    step: int
    loss: float
    base: float
    rise: float
    is_high: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The training went back to its state after `step` and continues from there."""

    step: int


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The order of this number was carried out; a change of nothing has no values."""

    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that stops nothing; a warning should be shown prominently."""

    text: str
    is_warning: bool = False


Event = (
    PhaseStarted
    | BaseFacts
    | Arithmetic
    | StepDone
    | ValidationDone
    | FixedLoss
    | RolledBack
    | SampleSaved
    | CheckpointSaved
    | SettingsChanged
    | Notice
)


class Control(StrEnum):
    """The next action of the training."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    STOP_AND_KEEP = "stop_and_keep"
    SAVE_AND_EXIT = "save_and_exit"


@dataclass(frozen=True, slots=True)
class Commands:
    """The result of a poll, also sent to a trainer; each request but `control` is there once."""

    control: Control = Control.CONTINUE
    sample_now: bool = False
    save_now: bool = False
    change: ChangeOrder | None = None

    def joined(self, later: Commands) -> Commands:
        """These and later ones: a stop or cancel persists, and the newest change counts."""
        return Commands(
            self.control if later.control is Control.CONTINUE else later.control,
            self.sample_now | later.sample_now,
            self.save_now | later.save_now,
            later.change or self.change,
        )


class Callbacks(Protocol):
    """The link between a training and its caller; called from the training's thread."""

    def on_event(self, event: Event) -> None:
        """Handle an event; an exception here ends the training."""

    def poll(self) -> Commands:
        """The requests since the last call; called before each step and while sampling."""
