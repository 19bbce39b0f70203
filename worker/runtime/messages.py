"""Messages between the train worker and its trainer process, and how the latter gets them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from worker.core.child_pipes import MessageLines, read_lines
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.training.changes import Change
from worker.core.training.config import TrainConfig
from worker.core.training.events import Arithmetic, Commands, Event
from worker.core.training.outcome import TrainedAdapter
from worker.core.training.presets import PromptForm
from worker.core.words import FileFormat, WeightDtype


@dataclass(frozen=True)
class Preload:
    """To the trainer: load this base model.

    `threads`: the number that an earlier trainer found to be the fastest.
    """

    model: Path
    threads: int | None = None


@dataclass(frozen=True)
class Calibrate:
    """To the trainer: measure a training step with this config on the loaded base model."""

    config: TrainConfig
    resolution: int


@dataclass(frozen=True)
class Exit:
    """To the trainer: end, since there is nothing more to measure."""


@dataclass(frozen=True)
class Train:
    """To the trainer: train; each process does this once.

    `prompt_form`, `pause_at`: as for `train`. `sends_round_trips`: first it sends what the images
    lose in the autoencoder.
    """

    model: Path
    data: Path
    out: Path
    cache: Path
    config: TrainConfig
    continues: bool = False
    arithmetic: Arithmetic | None = None
    prompt_form: PromptForm = ("", "")
    pause_at: int | None = None
    sends_round_trips: bool = False
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True)
class RoundTrips:
    """From the trainer: images that lose most in the autoencoder: PSNR in dB, before, after."""

    found: list[tuple[float, Path, Path]]


@dataclass(frozen=True)
class ExportFile:
    """A download to write next to the canonical file, with its `proof` once it is verified.

    If it could not be written, `problem` gives the reason.
    """

    format: FileFormat
    dtype: WeightDtype
    path: Path
    proof: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Export:
    """To the trainer: write these downloads of the trained adapter, with this metadata.

    `base` is the path of the base model used to verify them.
    """

    files: list[ExportFile]
    metadata: AdapterMetadata
    base: Path | None = None


@dataclass(frozen=True)
class Ready:
    """From the trainer: libraries are imported and the base model, if readable, is loaded.

    `memory_bytes`: of the GPU, None on a CPU.
    """

    device: str
    threads: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Heartbeat:
    """From the trainer: it checked for commands, so it is not stuck."""


@dataclass(frozen=True)
class CalibrationReport:
    """From the trainer: the cost of a step of this config on this machine."""

    model: Path
    config: TrainConfig
    resolution: int
    seconds_per_step: float
    trainable_parameters: int


@dataclass(frozen=True)
class ExportReport:
    """From the trainer: the downloads are written and verified, except those with a problem."""

    files: list[ExportFile] = field(default_factory=list)


@dataclass(frozen=True)
class FailureReport:
    """From the trainer: it failed; `expected` if the message is meant for users."""

    code: str
    error: str
    trace: str
    expected: bool


Message = (
    Preload
    | Calibrate
    | Exit
    | Train
    | RoundTrips
    | Commands
    | Export
    | Ready
    | Heartbeat
    | CalibrationReport
    | TrainedAdapter
    | ExportReport
    | FailureReport
    | Event
)
_LINES = MessageLines[Message](Message)
encode, decode = _LINES.encode, _LINES.decode


class MessageInbox:
    """Messages from the worker: orders are queued, commands take effect immediately."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[Message] = SimpleQueue()
        self.has_runs = False
        """True once a training was ordered: what is not for it can be left out."""
        self._lock = threading.Lock()
        self._commands = Commands()
        read_lines(self._dispatch)

    def next(self) -> Message:
        """Wait for the next order."""
        return self._orders.get()

    @property
    def has_orders(self) -> bool:
        """True if an order is waiting."""
        return not self._orders.empty()

    def commands(self) -> Commands:
        """Commands since the last call; a stop or cancel persists."""
        with self._lock:
            commands, self._commands = self._commands, Commands(self._commands.control)
        return commands

    def _dispatch(self, line: bytes) -> None:
        message = decode(line)
        if not isinstance(message, Commands):
            self.has_runs |= isinstance(message, Train)
            self._orders.put(message)
            return
        with self._lock:
            self._commands = self._commands.joined(message)
