"""Between the parts of a long io job: how far it is, and whether it shall end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import StepProgress
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from worker.runtime.lease import Lease

LOOK_SECONDS = 0.5

Handler = Callable[[IoJob, Lease, Path, threading.Event], None]
"""Carries out a job: (row, lease, folder for scratch, set when the worker stops)."""


class Canceled(Exception):
    """Somebody asked for the end of the job."""


class Drained(Exception):
    """The worker ends; the job goes back to the queue."""


def require_wanted(session: Session, lease: Lease) -> None:
    """Take part in a write only as the owner of a job that nobody asked to end meanwhile.

    Locks the row, so whoever asks later is told that it has ended. Raises Canceled or LostLease.
    """
    jobs.require_owner(session, IoJob, lease.claim)
    if session.get_one(IoJob, lease.claim.job_id, populate_existing=True).cancel_requested:
        raise Canceled


class Pulse:
    """Called between modules: writes how far the work is, and stops it when it shall end.

    Raises Canceled, Drained or LostLease.
    """

    def __init__(self, database: Database, lease: Lease, stopping: threading.Event) -> None:
        self._database = database
        self._lease = lease
        self._stopping = stopping
        self._looked = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` parts are done."""
        self._lease.check()
        if self._stopping.is_set():
            raise Drained
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        claim = self._lease.claim
        with self._database.write() as session:
            progress = StepProgress(done=done, total=total)
            jobs.update_owned(session, IoJob, claim, result=progress.stored())
            row = session.get_one(IoJob, claim.job_id, populate_existing=True)
            canceled = row.cancel_requested
        if canceled:
            raise Canceled


@contextmanager
def steered(
    database: Database, lease: Lease, stopping: threading.Event, **canceled: Any
) -> Iterator[Pulse]:
    """The pulse of a job, which is given back or canceled when its pulse says so.

    `canceled`: columns of a row that somebody asked to end.
    """
    try:
        yield Pulse(database, lease, stopping)
    except Drained:
        with database.write() as session:
            jobs.give_back(session, IoJob, lease.claim)
    except Canceled:
        with database.write() as session:
            jobs.finish(session, IoJob, lease.claim, JobStatus.CANCELED, **canceled)
