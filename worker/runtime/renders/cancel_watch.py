"""Watches whether a render should stop, and ends its process if it cannot."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.tables.renders import Render
from worker.core.inference.errors import RenderCanceled
from worker.runtime.lease import Lease

LOOK_SECONDS = 0.3
GRACE_SECONDS = 1.2  # for the layer that is being computed
ENDED = 70  # exit status

log = logging.getLogger(__name__)


class CancelWatch:
    """Looks for a cancel, a lost lease or a worker that stops, within a `with` block.

    `should_stop` then is true. Native code cannot be interrupted, so a render that has not left the
    block after `GRACE_SECONDS` gets its final status here. If it is `computing`, its process is
    ended, and the pool or the supervisor starts another one; a base model that is being loaded is
    of use to the next render.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        stopping: threading.Event,
        *,
        end_process: Callable[[int], Any] = os._exit,
    ) -> None:
        self._database = database
        self._lease = lease
        self._stopping = stopping
        self._end_process = end_process
        self._requested = threading.Event()
        self._left = threading.Event()
        self._is_computing = False
        self.has_stored_end = False
        self._thread = threading.Thread(target=self._watch, name="cancel-watch", daemon=True)

    def __enter__(self) -> CancelWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def should_stop(self) -> bool:
        """True once the render should stop."""
        return self._requested.is_set()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A part of the block in which the process may be ended; raises RenderCanceled first."""
        if self.should_stop():
            raise RenderCanceled
        self._is_computing = True
        try:
            yield
        finally:
            self._is_computing = False

    def _watch(self) -> None:
        while not self._left.wait(LOOK_SECONDS):
            if self._is_requested():
                self._requested.set()
                if not self._left.wait(GRACE_SECONDS):
                    self._end()
                return

    def _is_requested(self) -> bool:
        if self._stopping.is_set() or self._lease.lost.is_set():
            return True
        try:
            with self._database.read() as session:
                return jobs.is_canceled(session, Render, self._lease.claim)
        except sa.exc.SQLAlchemyError as error:
            log.warning("Could not look whether a render was canceled: %s", error)
            return False
        except jobs.LostLease:
            return True

    def _end(self) -> None:
        try:
            with self._database.write() as session:
                if self._stopping.is_set():
                    jobs.give_back(session, Render, self._lease.claim)
                else:
                    jobs.finish(session, Render, self._lease.claim, JobStatus.CANCELED)
            self.has_stored_end = True
        except (jobs.LostLease, sa.exc.SQLAlchemyError) as error:
            log.warning("Could not store the end of a render: %s", error)
        if self._is_computing:
            log.critical("A render did not stop in time, so its process ends.")
            self._end_process(ENDED)
