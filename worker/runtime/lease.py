"""Keeps the lease on a job while it is processed, and detects when it is lost."""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim, LostLease
from app.registry.tables.jobs import Job

RENEWALS_PER_LEASE = 4
LONGEST_WAIT = 5.0  # seconds between renewals, for reapers that were given a shorter lease

log = logging.getLogger(__name__)


class Lease:
    """Renews a claim from a thread within a `with` block.

    `lost` is set when another worker owns the job. While the database is unreachable, the lease
    is neither renewed nor given up; afterwards the row shows who owns the job.
    """

    def __init__(
        self, database: Database, table: type[Job], claim: Claim, *, seconds: float
    ) -> None:
        self.claim = claim
        self.lost = threading.Event()
        self._database = database
        self._table = table
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_repeatedly, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LostLease if another worker is known to own the job."""
        if self.lost.is_set():
            raise LostLease(f"{self._table.__tablename__} {self.claim.job_id} was taken over.")

    def note_part(self) -> None:
        """The job has finished a part of its work; for who keeps a time limit for parts."""

    def release(self) -> None:
        """Stop renewing, because the job is finished."""
        self._ended.set()

    def _renew_repeatedly(self) -> None:
        while not self._ended.wait(min(LONGEST_WAIT, self._seconds / RENEWALS_PER_LEASE)):
            try:
                with self._database.write() as session:
                    jobs.renew(session, self._table, self.claim, lease_seconds=self._seconds)
            except LostLease:
                if not self._ended.is_set():
                    log.warning("Lost %s %s.", self._table.__tablename__, self.claim.job_id)
                    self.lost.set()
                return
            except sa.exc.SQLAlchemyError as error:
                log.warning("Could not renew the lease, will retry: %s", error)
