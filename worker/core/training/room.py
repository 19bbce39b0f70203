"""Writes the files of a training on a disk that may be full."""

import time
from collections.abc import Callable
from typing import TypeVar

from worker.core.training.events import Event, Phase, PhaseStarted
from worker.core.training.failures import FULL_DISK

TRY_SECONDS = 1.0
POLL_SECONDS = 0.1

T = TypeVar("T")


class RoomToWrite:
    """Writes at once, or when there is room again if the training `waits` for it.

    Whoever frees the space may be the person who watches, or the next sweep.
    """

    def __init__(
        self, emit: Callable[[Event], None], poll: Callable[[], None], *, waits: bool
    ) -> None:
        self._emit = emit
        self._poll = poll
        self._waits = waits

    def write(self, write: Callable[[], T], *, phase: Phase) -> T:
        """The result of `write`, tried until the disk is no longer full; then `phase` goes on.

        Raises OSError of a full disk if it does not wait, and what `poll` raises meanwhile.
        """
        is_waiting = False
        while True:
            try:
                written = write()
            except OSError as error:
                if not self._waits or error.errno not in FULL_DISK:
                    raise
            else:
                if is_waiting:
                    self._emit(PhaseStarted(phase))
                return written
            if not is_waiting:
                is_waiting = True
                self._emit(PhaseStarted(Phase.WAITING))
            self._wait()

    def _wait(self) -> None:
        """Wait a moment; a training that is asked to end then waits no more."""
        end = time.monotonic() + TRY_SECONDS
        try:
            while time.monotonic() < end:
                self._poll()
                time.sleep(POLL_SECONDS)
        except Exception:
            self._waits = False
            raise
