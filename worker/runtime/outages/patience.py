"""Outages are not the job's fault: what can be waited out, how long, and when claims go on."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from app.registry.blobs.guard import JustDeleted
from app.registry.errors import AppError, StorageFullError
from app.registry.outages import DatabaseBusy, DatabaseUnavailable, outage
from app.registry.storage.store import StorageUnavailable

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
SHOWN = 300  # characters

WAITS_FOR_SPACE = (
    "Waiting for space: the disk is full. Free some space; this goes on by itself then."
)
WAITS_FOR_STORAGE = "Waiting for the storage; this goes on by itself. {detail}"
WAITS_FOR_DATABASE = "Waiting for the database; this goes on by itself."

log = logging.getLogger(__name__)


class CanceledWhileWaiting(Exception):
    """A cancel was requested during an outage."""


class JobWaits(Exception):
    """A job waits for something that is not its fault; the message is the sentence for its row."""


class GaveUp(Exception):
    """The worker stops during an outage, so something was left undone; the job goes on later."""


def reason_to_wait(error: BaseException) -> str | None:
    """A sentence about what a job waits for after this error; None if waiting does not help."""
    if isinstance(error, JobWaits):
        return str(error)[:SHOWN]
    known = error if isinstance(error, AppError) else outage(error)
    if isinstance(known, StorageFullError):
        return WAITS_FOR_SPACE
    if isinstance(known, StorageUnavailable):
        return WAITS_FOR_STORAGE.format(detail=known.detail)[:SHOWN]
    if isinstance(known, (DatabaseBusy, DatabaseUnavailable)):
        return WAITS_FOR_DATABASE
    return None


class Backoff:
    """Pauses that double up to `LONGEST_SECONDS`, each shortened by chance by up to a half.

    So many workers do not come back in the same moment.
    """

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._next = self._next, min(LONGEST_SECONDS, 2 * self._next)
        return seconds * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start with short pauses again."""
        self._next = FIRST_SECONDS


class Pause:
    """Keeps all threads of a job loop from claiming during an outage.

    It ends when `check_storage` raises nothing. Its pauses grow until a job ends without an outage.
    """

    def __init__(self, check_storage: Callable[[], None], stopping: threading.Event) -> None:
        self.reason = ""
        self._check_storage = check_storage
        self._stopping = stopping
        self._backoff = Backoff()
        self._lock = threading.Lock()
        self._probe_at = 0.0

    def begin(self, reason: str) -> None:
        """Claim nothing for a while, because of this outage."""
        with self._lock:
            if not self.reason:
                self._probe_at = time.monotonic() + self._backoff.next()
            self.reason = reason

    def note_success(self) -> None:
        """A job ended without an outage."""
        self._backoff.reset()

    def wait(self) -> None:
        """Return when claims may go on, or when the worker stops."""
        while self.reason and not self._stopping.is_set():
            if self._stopping.wait(max(0.0, self._probe_at - time.monotonic())):
                return
            with self._lock:
                if self.reason and time.monotonic() >= self._probe_at:
                    self._probe()

    def _probe(self) -> None:
        try:
            self._check_storage()
        except Exception as error:
            reason = reason_to_wait(error)
            if reason is None:
                log.exception("Checking the storage failed.")
            self.reason = reason or self.reason
            self._probe_at = time.monotonic() + self._backoff.next()
        else:
            self.reason = ""
            log.info("Claiming goes on.")


def wait_out(
    action: Callable[[], None],
    *,
    is_over: Callable[[float], bool],
    on_wait: Callable[[str], None],
) -> bool:
    """Do `action`, again and again during an outage; False if it was left undone.

    `is_over` waits the given seconds and tells whether to give up. Other errors are raised, as is
    JustDeleted: `action` may only write the row of a file, which has to be stored again before.
    """
    backoff = Backoff()
    logged = ""
    while True:
        try:
            action()
        except Exception as error:
            reason = reason_to_wait(error)
            if reason is None or isinstance(error, JustDeleted):
                raise
            if reason != logged:
                log.warning("%s (%s)", reason, type(error).__name__)
                logged = reason
            on_wait(reason)
        else:
            return True
        if is_over(backoff.next()):
            return False
