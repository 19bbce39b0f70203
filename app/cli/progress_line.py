"""The progress of a command that takes a while, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TERMINAL_SECONDS = 0.2  # between two updates of the line
LOG_SECONDS = 5.0  # between two lines, where there is no terminal


@contextmanager
def progress_line(*, in_logs: bool = True) -> Iterator[Callable[[str], None]]:
    """A callback that shows a text: on one line of a terminal, else on a line at times.

    What takes less than the time between two updates shows nothing. `in_logs`: say something where
    there is no terminal.
    """
    is_terminal = sys.stderr.isatty()
    pause = TERMINAL_SECONDS if is_terminal else LOG_SECONDS
    shown_at, shown = time.monotonic(), False

    def show(text: str) -> None:
        nonlocal shown_at, shown
        if time.monotonic() - shown_at < pause or not (is_terminal or in_logs):
            return
        shown_at, shown = time.monotonic(), True
        if is_terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown and is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def layer_progress() -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) of a tool that works on one layer after another."""
    with progress_line() as show:
        yield lambda done, total: show(f"Layer {done + 1} of {total}")
