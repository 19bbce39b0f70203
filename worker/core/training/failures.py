"""Full memory and full disks: errors with sentences for people, and waiting for space."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from worker.core.memory import is_out_of_memory
from worker.core.training.config import TrainConfig
from worker.core.training.errors import OutOfMemoryError, StorageError
from worker.core.training.events import Event, Phase, PhaseStarted

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
TRY_SECONDS = 1.0
POLL_SECONDS = 0.1

T = TypeVar("T")


@contextmanager
def translate_failures(config: TrainConfig) -> Iterator[None]:
    """Raise OutOfMemoryError and StorageError in place of the errors of torch and the system."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_memory_advice(config)) from error
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        message = "The disk is full. Free some space and start the training again."
        raise StorageError(message) from error


def _memory_advice(config: TrainConfig) -> str:
    advice = []
    if not config.gradient_checkpointing:
        advice.append("turn on “Gradient checkpointing”")
    if config.batch_size > 1:
        advice.append(f"use a batch size below {config.batch_size}")
    advice.append("use a lower resolution")
    return f"Out of memory. To train with less, {' or '.join(advice)}."


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
