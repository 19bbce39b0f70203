"""Stores the samples and checkpoints of a training from a thread, so that outages hold up nothing.

They wait as files of the attempt, in order. Of the checkpoints, only the newest few wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial

from worker.runtime.outages.patience import wait_out

WAITING_CHECKPOINTS = 2
CLOSE_SECONDS = 5.0
LOOK_SECONDS = 0.1
LONG_WAIT_SECONDS = 10.0  # worth a line in the run's log

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Upload:
    """One thing to store: `steps` are done one after another, each until it works."""

    steps: tuple[Callable[[], None], ...]
    is_checkpoint: bool = False
    discard: Callable[[], None] = field(default=lambda: None)
    is_tried: bool = False


class Uploads:
    """Stores what is added, in order. `on_wait` gets the reason for a wait, None at its end.

    `on_late` gets the seconds of a long wait, once everything that waited is stored.
    """

    def __init__(
        self, *, on_wait: Callable[[str | None], None], on_late: Callable[[float], None]
    ) -> None:
        self._on_wait = on_wait
        self._on_late = on_late
        self._waiting: deque[Upload] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._since: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_empty(self) -> bool:
        """True if everything is stored."""
        return not self._waiting

    def add(self, upload: Upload) -> None:
        """Store this soon; returns at once."""
        with self._changed:
            self._waiting.append(upload)
            if upload.is_checkpoint:
                self._discard_old()
            if self._thread is None:
                run = partial(copy_context().run, self._run)  # for the owner of the run
                self._thread = threading.Thread(target=run, name="uploads", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise an upload's error that was not an outage, such as LostLease."""
        if self._error is not None:
            raise self._error

    def finish(self, *, give_up: Callable[[], bool]) -> bool:
        """Wait until everything is stored, or until `give_up`; True if it is."""
        while not self.is_empty and not give_up():
            self.check()
            with self._changed:
                self._changed.wait_for(lambda: self.is_empty, LOOK_SECONDS)
        self.check()
        return self.is_empty

    def close(self) -> None:
        """Drop what waits; an upload that is under way may end later and change nothing."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _discard_old(self) -> None:
        """Keep only the newest checkpoints of those that nobody has begun to store."""
        idle = [each for each in self._waiting if each.is_checkpoint and not each.is_tried]
        for old in idle[:-WAITING_CHECKPOINTS]:
            self._waiting.remove(old)
            old.discard()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
                if self._closed.is_set():
                    return
                upload = self._waiting[0]
                upload.is_tried = True
            try:
                self._store(upload)
            except Exception as error:  # raised again by `check`, in the thread of the attempt
                self._error = error
                return
            finally:
                upload.discard()
            with self._changed:
                self._waiting.remove(upload)
                self._changed.notify_all()

    def _store(self, upload: Upload) -> None:
        for step in upload.steps:
            if not wait_out(
                step, is_over=lambda wait: self._is_over(upload, wait), on_wait=self._wait
            ):
                return
        if self._since is not None:
            waited, self._since = time.monotonic() - self._since, None
            self._on_wait(None)
            if waited >= LONG_WAIT_SECONDS:
                self._on_late(waited)

    def _wait(self, reason: str) -> None:
        if self._since is None:
            self._since = time.monotonic()
        self._on_wait(reason)

    def _is_over(self, upload: Upload, seconds: float) -> bool:
        """Wait; True if it is no longer worth storing, because a newer checkpoint waits too."""
        if self._closed.wait(seconds):
            return True
        with self._changed:
            return upload.is_checkpoint and any(
                each.is_checkpoint for each in self._waiting if each is not upload
            )
