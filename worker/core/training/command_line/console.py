"""A training told on a terminal: one living line; elsewhere: a line every so often."""

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
    HeldOut,
    Notice,
    Phase,
    PhaseStarted,
    SampleSaved,
    StepDone,
)

STEPS_BETWEEN_LINES = 10
SECONDS_BETWEEN_FRAMES = 0.1
BAR = 16  # characters; with the numbers it fits into 80
STOPPED = 130  # as a shell calls a program ended by Ctrl-C
ONE_PRESS = 1.0  # seconds in which a second signal is the same press, come twice
CLEAR = "\r\x1b[K"
BUSY = {
    Phase.PREPARING: "Preparing …",
    Phase.ENCODING: "Encoding pictures and captions …",
    Phase.SAMPLING: "Drawing samples …",
    Phase.SAVING: "Writing the adapter …",
}


class Console:
    """Callbacks that print; the first SIGTERM or Ctrl-C makes the training save and leave.

    `facts` are how much is trained, once that is known. `columns` is the width of the terminal.
    """

    def __init__(self, stream: TextIO, *, columns: int = 80) -> None:
        self.facts: BaseFacts | None = None
        self._stream = stream
        self._columns = columns
        self._live = stream.isatty()
        self._living = ""
        self._drawn = 0.0
        self._asked: float | None = None
        self._told = False

    def listen(self) -> None:
        """Take SIGTERM and Ctrl-C; a second one, later, ends at once and saves nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def on_event(self, event: Event) -> None:
        """Print a line, or renew the living one."""
        if isinstance(event, StepDone):
            self._on_step(event)
        elif isinstance(event, PhaseStarted):
            self._show(BUSY.get(event.phase, self._living))
        elif isinstance(event, BaseFacts):
            self.facts = event
            self.print(f"Training {share(event)}.")
        elif isinstance(event, CheckpointSaved):
            self.print(f"Checkpoint {event.path} ({size(event.size_bytes)})")
        elif isinstance(event, SampleSaved):
            self.print(f"Sample {event.path} ({event.prompt})")
        elif isinstance(event, HeldOut):
            self.print(
                f"Held-out loss {event.loss:.4f} ({event.low:.4f} to {event.high:.4f}) "
                f"after step {event.step}"
            )
        elif isinstance(event, Notice):
            self.print(f"Warning: {event.text}" if event.is_warning else event.text)

    def poll(self) -> Commands:
        """What a signal asked for."""
        if self._asked is None:
            return Commands()
        if not self._told:
            self._told = True
            self._show("Saving a checkpoint …")
        return Commands(Control.SAVE_AND_EXIT)

    def print(self, line: str) -> None:
        """A line that stays, above the living one."""
        self._stream.write(f"{CLEAR}{line}\n" if self._live else f"{line}\n")
        self._show(self._living)
        self._stream.flush()

    def end_line(self) -> None:
        """Take the living line away."""
        self._show("")
        self._stream.flush()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is not None and now - self._asked > ONE_PRESS:
            sys.exit(STOPPED)
        self._asked = self._asked or now

    def _on_step(self, event: StepDone) -> None:
        line = (
            f"step {event.step}/{event.total}  loss {event.loss:.4f}  "
            f"{event.steps_per_second:.2f} steps/s  "
            f"{duration((event.total - event.step) / event.steps_per_second)} left"
        )
        if event.step == event.total:
            self._living = ""
            self.print(line)
        elif self._live:
            now = time.monotonic()
            if now - self._drawn >= SECONDS_BETWEEN_FRAMES:
                self._drawn = now
                self._show(f"{bar(event.step / event.total)} {line}")
        elif event.step == 1 or event.step % STEPS_BETWEEN_LINES == 0:
            self.print(line)

    def _show(self, line: str) -> None:
        """Renew the living line, cut to the terminal's width; nothing elsewhere."""
        if self._live:
            self._living = line
            self._stream.write(CLEAR + line[: self._columns - 1])
            self._stream.flush()


def bar(done: float) -> str:
    """A bar, filled for the part that is done."""
    filled = round(done * BAR)
    return "━" * filled + "╌" * (BAR - filled)


def duration(seconds: float) -> str:
    """A time in the two units that matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(number: int) -> str:
    """A size in bytes as people say it."""
    return f"{number / 1e6:.1f} MB" if number >= 100_000 else f"{number / 1e3:.1f} kB"


def share(facts: BaseFacts) -> str:
    """How much is trained of how much."""
    part = facts.trainable_parameters / facts.base_parameters
    return f"{facts.trainable_parameters:,} of {facts.base_parameters:,} parameters ({part:.2%})"
