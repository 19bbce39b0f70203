"""Releases the jobs of workers that are gone, without comparing clocks of different processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import col, select

from app.registry.db import Database
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.owner import is_gone
from app.registry.tables.all import JOB_TABLES
from app.registry.tables.jobs import Job

LONGEST_GAP = 0.5  # of a lease, between two looks that count as watching


@dataclass(frozen=True)
class HeldLease:
    """The lease of a running job, as it was read; a renewal makes another one of it."""

    table: type[Job]
    job_id: int
    token: str
    until: datetime | None


class Reaper:
    """Watches the leases of running jobs and releases those that nobody renews.

    A job is released when its lease has stood still for `lease_seconds` of this process's monotonic
    clock, in which it looked at least twice a lease: so neither wrong clocks, nor a machine that
    slept, nor an unreachable database cost anybody a job. A job whose process is proved to have
    ended is released at once.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._looked = clock()
        self._first_seen: dict[HeldLease, float] = {}

    def forget(self) -> None:
        """Start watching again, because something was not seen: the database, or time itself."""
        self._first_seen.clear()

    def look(self) -> int:
        """Look at all running jobs once; release those of lost workers and return their number.

        Call it several times per lease, after a write that proved that owners can write too.
        """
        began = self._clock()
        if began - self._looked > LONGEST_GAP * self._lease_seconds:
            self.forget()  # this process was stopped, or waited for the database
        try:
            held = self._held_leases()
        except sa.exc.SQLAlchemyError:
            self.forget()
            raise
        self._looked = self._clock()
        if self._looked - began > LONGEST_GAP * self._lease_seconds:
            self.forget()
        self._first_seen = {lease: self._first_seen.get(lease, self._looked) for lease in held}
        return sum(self._release(lease) for lease in held if self._is_lost(lease, now=began))

    def _is_lost(self, lease: HeldLease, *, now: float) -> bool:
        return now - self._first_seen[lease] >= self._lease_seconds or is_gone(lease.token)

    def _held_leases(self) -> list[HeldLease]:
        with self._database.read() as session:
            return [
                HeldLease(table, job_id, token or "", until)
                for table in JOB_TABLES
                for job_id, token, until in session.exec(
                    select(table.id, table.owner_token, table.lease_until).where(
                        col(table.status) == JobStatus.RUNNING
                    )
                )
                if job_id is not None
            ]

    def _release(self, lease: HeldLease) -> bool:
        with self._database.write() as session:
            return jobs.release(
                session, lease.table, lease.job_id, token=lease.token, lease_was=lease.until
            )
