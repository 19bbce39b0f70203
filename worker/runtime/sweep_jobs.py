"""Sweep jobs of the io worker, and the clock that queues one per day.

Every io worker has a clock, but only one of them creates the job.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import SweepResult
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from app.registry.storage.store import BlobStore
from app.registry.sweep import order_if_due, sweep
from worker.runtime.job_progress import cancellable
from worker.runtime.lease import Lease

FIRST_LOOK_SECONDS = 60.0  # do not slow down the start of a worker
LOOK_SECONDS = 3_600.0

log = logging.getLogger(__name__)


class SweepJobs:
    """Queues sweeps while it is open, and processes them."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store
        self._closed = threading.Event()

    def open(self) -> None:
        """Start the clock."""
        threading.Thread(target=self._check_clock, name="sweep-clock", daemon=True).start()

    def close(self) -> None:
        """Stop the clock."""
        self._closed.set()

    def _check_clock(self) -> None:
        wait = FIRST_LOOK_SECONDS
        while not self._closed.wait(wait):
            wait = LOOK_SECONDS
            try:
                order_if_due(self._database)
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot reach the database, will retry: %s", error)

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Delete the files that nothing refers to."""
        with cancellable(self._database, lease, stopping, result={}) as progress:
            swept = sweep(self._database, self._store, on_item=lambda: progress(0, 1))
            result = SweepResult(files=swept.files, size_bytes=swept.size_bytes).stored()
            with self._database.write() as session:
                jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
