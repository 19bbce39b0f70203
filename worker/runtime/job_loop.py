"""A room of a worker: threads that claim rows of one queue, work on them, and look after leases."""

from __future__ import annotations

import logging
import threading
import traceback
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlmodel import col, select

from app.registry.db import Database, database_now
from app.registry.jobs import presence
from app.registry.jobs import service as jobs
from app.registry.jobs.models import Job
from app.registry.jobs.service import Claim, LostLease
from app.registry.jobs.states import JobStatus
from app.registry.tables import JOB_TABLES
from worker.runtime.lease import Lease

IDLE_SECONDS = 5.0  # an idle room looks by itself this often, in case a hint was lost
TICK_SECONDS = 5.0
REAPS_PER_LEASE = 4

log = logging.getLogger(__name__)


class Work(Protocol):
    """What a room does with a row it claimed."""

    @property
    def table(self) -> type[Job]:
        """Whose rows they are."""

    def prepare(self) -> None:
        """Warm up; called once in a working thread before the first claim."""

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        """Do the job and move its row on; give it back soon once `stopping` is set."""

    def close(self) -> None:
        """Let go of what `prepare` took."""

    @property
    def device(self) -> str:
        """Where the work is done, in words; empty while unknown."""


class Room:
    """Works on the rows of one table until it is stopped."""

    def __init__(
        self, database: Database, work: Work, *, lease_seconds: float, threads: int = 1
    ) -> None:
        self.work = work
        self.stopping = threading.Event()
        self._database = database
        self._lease_seconds = lease_seconds
        self._changed = threading.Condition()
        self._hints = 0
        self._seen = 0
        self._busy = 0
        self._done = 0
        name = work.table.queue
        self._workers = [
            threading.Thread(target=self._work, args=(number,), name=f"{name}-{number}")
            for number in range(threads)
        ]
        self._keeper = threading.Thread(target=self._keep, name=f"{name}-keeper", daemon=True)
        self._prepared = threading.Event()
        self._left = threading.Event()

    def start(self) -> None:
        """Begin to work; returns at once."""
        for thread in (*self._workers, self._keeper):
            thread.start()

    def wake(self) -> None:
        """Look for work now; returns at once."""
        with self._changed:
            self._hints += 1
            self._changed.notify_all()

    def serve_hint(self) -> None:
        """Look for work now; returns when a job was done or there is none.

        Blocking keeps Celery from handing further hints to a worker that is busy.
        """
        with self._changed:
            self._hints += 1
            mine, done = self._hints, self._done
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._done > done
                    or (self._busy == 0 and self._seen >= mine)
                    or self.stopping.is_set()
                )
            )

    def request_stop(self) -> None:
        """Ask the threads to give their jobs back and end; returns at once, safe in a signal."""
        self.stopping.set()
        threading.Thread(target=self._notify, daemon=True).start()  # the lock may be held below us

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of all work; False when it did not come in time."""
        for thread in self._workers:
            thread.join(timeout)
        alive = any(thread.is_alive() for thread in self._workers)
        self._left.set()
        if self._keeper.is_alive():
            self._keeper.join(timeout)
        return not alive

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _work(self, number: int) -> None:
        try:
            if number == 0:
                self._prepare()
            self._prepared.wait()
            while not self.stopping.is_set():
                with self._changed:
                    self._seen = self._hints
                    self._busy += 1
                try:
                    self._drain()
                finally:
                    with self._changed:
                        self._busy -= 1
                        self._changed.notify_all()
                        woken = partial(self._is_woken, since=self._seen)
                        self._changed.wait_for(woken, IDLE_SECONDS)
        finally:
            if number == 0:
                self.work.close()

    def _is_woken(self, *, since: int) -> bool:
        return self._hints > since or self.stopping.is_set()

    def _prepare(self) -> None:
        try:
            self.work.prepare()
        except Exception:
            log.exception("Warming up failed; jobs will say what is wrong.")
        finally:
            self._prepared.set()

    def _drain(self) -> None:
        while not self.stopping.is_set():
            try:
                claimed = self._claim()
            except sa.exc.SQLAlchemyError as error:
                log.warning("The database cannot be asked for work just now: %s", error)
                return
            if claimed is None:
                return
            self._run(*claimed)
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _claim(self) -> tuple[Job, Claim] | None:
        with self._database.read() as session:
            if not jobs.has_waiting(session, self.work.table):
                return None
        with self._database.write() as session:
            return jobs.claim_next(session, self.work.table, lease_seconds=self._lease_seconds)

    def _run(self, job: Job, claim: Claim) -> None:
        label = f"{self.work.table.__tablename__} {claim.job_id}"
        log.info("%s: begun, attempt %s.", label, job.attempt)
        with Lease(self._database, self.work.table, claim, seconds=self._lease_seconds) as lease:
            try:
                self.work.run(job, lease, self.stopping)
            except LostLease as lost:
                log.warning("%s: %s", label, lost)
            except Exception as error:
                log.exception("%s: the worker failed.", label)
                self._retry(claim, error)

    def _retry(self, claim: Claim, error: Exception) -> None:
        """An error of ours: the row is tried again, then fails with the trace."""
        trace = "".join(traceback.format_exception(error))
        sentence = f"The worker made a mistake with this: {type(error).__name__}: {error}"
        try:
            with self._database.write() as session:
                jobs.give_up_or_retry(
                    session,
                    self.work.table,
                    claim,
                    code="worker_error",
                    error=sentence[:500],
                    trace=trace,
                )
        except LostLease:
            pass
        except sa.exc.SQLAlchemyError:
            log.exception("The error could not be written; the lease will run out.")

    def _keep(self) -> None:
        """Reap what others left, and tell that this worker lives."""
        tick = min(TICK_SECONDS, self._lease_seconds / REAPS_PER_LEASE)
        me = presence.Presence(self.work.table.queue)
        while True:
            try:
                reap_expired(self._database)
                me.announce(self._database, device=self.work.device)
            except sa.exc.SQLAlchemyError as error:
                log.warning("The database cannot be reached just now: %s", error)
            if self._left.wait(tick):
                break
        try:
            me.leave(self._database)
        except sa.exc.SQLAlchemyError as error:
            log.warning("Could not sign off: %s", error)


def reap_expired(database: Database) -> int:
    """Take back the jobs of workers that fell silent, of every kind; gives how many."""
    with database.read() as session:
        now = database_now(session)
        expired = [table for table in JOB_TABLES if session.exec(_expired(table, now)).first()]
    reaped = 0
    for table in expired:
        with database.write() as session:
            reaped += jobs.reap(session, table)
    return reaped


def _expired(table: type[Job], now: datetime) -> Any:
    silent = (col(table.status) == JobStatus.RUNNING) & (col(table.lease_until) < now)
    return select(table.id).where(silent).limit(1)
