"""Undoes what a request began on the Hub when it is canceled before it is complete."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CancelGuard:
    """A lock between a cancel and steps that must not be interrupted: each waits for the other.

    `undo` reverts what was begun so far; `is_done` means that nothing is left to cancel.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.undo: Callable[[], None] | None = None
        self.is_done = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step that completes even when a cancel arrives meanwhile."""
        with self._lock:
            yield

    def cancel(self) -> bool:
        """Undo what was begun and allow no further step. False when all work is complete."""
        self._lock.acquire()  # never released: a step that waits for it must not begin
        if self.is_done:
            self._lock.release()
            return False
        if self.undo is not None:
            self.undo()
        return True
