"""What an order has begun on the Hub, undone when somebody cancels it before it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Undoing:
    """Keeps a cancel and the steps that must not be torn apart: each waits for the other.

    `undo` takes back what was begun so far; `is_done` says that there is nothing left to cancel.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.undo: Callable[[], None] | None = None
        self.is_done = False

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A step that is made to its end, even when somebody cancels meanwhile."""
        with self._lock:
            yield

    def cancel(self) -> bool:
        """Undo what was begun; no step is begun after that. False when all is done already."""
        self._lock.acquire()  # for good: what waits to begin a step never does
        if self.is_done:
            self._lock.release()
            return False
        if self.undo is not None:
            self.undo()
        return True
