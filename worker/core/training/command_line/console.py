"""Prints a training's progress: one updating line on a terminal, elsewhere a line now and then."""

import signal
import sys
import time
from types import FrameType
from typing import TextIO

from worker.core.training.events import (
    BaseFacts,
    CheckpointSaved,
    Commands,
    Control,
    Event,
    FixedLoss,
    Notice,
    Phase,
    PhaseStarted,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from worker.core.wording import duration, size_text

INTERRUPTED = 75  # EX_TEMPFAIL: saved; the same command continues
FAILED = 1
RUINED = 4
STEPS_BETWEEN_LINES = 10
SECONDS_BETWEEN_FRAMES = 0.1
BAR = 16  # characters; fits into 80 columns with the numbers
STOPPED = 130  # the shell's exit status after Ctrl-C
SAME_PRESS_SECONDS = 1.0  # a second signal within this time counts as the same key press
CLEAR = "\r\x1b[K"
PHASE_TEXTS = {
    Phase.PREPARING: "Preparing …",
    Phase.ENCODING: "Encoding images and captions …",
    Phase.SAMPLING: "Generating samples …",
    Phase.SAVING: "Writing the adapter …",
    Phase.WAITING: "Waiting for space: the disk is full …",
}


class Console:
    """Callbacks that print; the first SIGTERM or Ctrl-C makes the training save and exit.

    `facts` is set when the parameter counts are known. `columns` is the terminal's width.
    """

    def __init__(self, stream: TextIO, *, columns: int = 80) -> None:
        self.facts: BaseFacts | None = None
        self._stream = stream
        self._columns = columns
        self._live = stream.isatty()
        self._status = ""
        self._last_frame = 0.0
        self._signal_time: float | None = None
        self._is_announced = False

    def listen(self) -> None:
        """Handle SIGTERM and Ctrl-C; a second, later one exits at once without saving."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def on_event(self, event: Event) -> None:
        """Print a line, or update the status line."""
        if isinstance(event, StepDone):
            self._on_step(event)
        elif isinstance(event, PhaseStarted):
            self._show_line(PHASE_TEXTS.get(event.phase, self._status))
        elif isinstance(event, BaseFacts):
            self.facts = event
            self.print(f"Training {format_share(event)}.")
        elif isinstance(event, CheckpointSaved):
            self.print(f"Checkpoint {event.path} ({size_text(event.size_bytes)})")
        elif isinstance(event, SampleSaved):
            self.print(f"Sample {event.path} ({event.prompt})")
        elif isinstance(event, ValidationDone):
            self.print(
                f"Validation loss {event.loss:.4f} ({event.low:.4f} to {event.high:.4f}) "
                f"after step {event.step}"
            )
        elif isinstance(event, FixedLoss) and event.is_high:
            self.print(
                f"Warning: loss on fixed images {event.rise:.1f} times the base model's "
                f"after step {event.step}"
            )
        elif isinstance(event, Notice):
            self.print(f"Warning: {event.text}" if event.is_warning else event.text)

    def poll(self) -> Commands:
        """The command that a signal requested."""
        if self._signal_time is None:
            return Commands()
        if not self._is_announced:
            self._is_announced = True
            self._show_line("Saving a checkpoint …")
        return Commands(Control.SAVE_AND_EXIT)

    def print(self, line: str) -> None:
        """Print a permanent line above the status line."""
        self._stream.write(f"{CLEAR}{line}\n" if self._live else f"{line}\n")
        self._show_line(self._status)
        self._stream.flush()

    def end_line(self) -> None:
        """Remove the status line."""
        self._show_line("")
        self._stream.flush()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal_time is not None and now - self._signal_time > SAME_PRESS_SECONDS:
            sys.exit(STOPPED)
        self._signal_time = self._signal_time or now

    def _on_step(self, event: StepDone) -> None:
        line = (
            f"step {event.step}/{event.total}  loss {event.loss:.4f}  "
            f"{event.steps_per_second:.2f} steps/s  "
            f"{duration(round((event.total - event.step) / event.steps_per_second))} left"
        )
        if event.step == event.total:
            self._status = ""
            self.print(line)
        elif self._live:
            now = time.monotonic()
            if now - self._last_frame >= SECONDS_BETWEEN_FRAMES:
                self._last_frame = now
                self._show_line(f"{progress_bar(event.step / event.total)} {line}")
        elif event.step == 1 or event.step % STEPS_BETWEEN_LINES == 0:
            self.print(line)

    def _show_line(self, line: str) -> None:
        """Update the status line, cut to the terminal's width; does nothing elsewhere."""
        if self._live:
            self._status = line
            self._stream.write(CLEAR + line[: self._columns - 1])
            self._stream.flush()


def progress_bar(done: float) -> str:
    """A progress bar filled to the share `done`."""
    filled = round(done * BAR)
    return "━" * filled + "╌" * (BAR - filled)


def format_share(facts: BaseFacts) -> str:
    """The trained parameters, absolute and as a share."""
    part = facts.trainable_parameters / facts.base_parameters
    return f"{facts.trainable_parameters:,} of {facts.base_parameters:,} parameters ({part:.2%})"


def print_failure(reason: object) -> int:
    """Print why there is no adapter; returns the exit code."""
    print(reason, file=sys.stderr)
    return FAILED
