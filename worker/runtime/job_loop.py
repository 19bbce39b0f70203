"""The job loop of a worker: threads that claim rows of one queue, process them and keep leases."""

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
from worker.runtime.device import unused_gpu
from worker.runtime.lease import Lease

IDLE_SECONDS = 5.0  # polling interval of an idle loop, in case a wake-up was lost
TICK_SECONDS = 5.0
REAPS_PER_LEASE = 4

log = logging.getLogger(__name__)


class Work(Protocol):
    """Processes the rows of one queue."""

    @property
    def table(self) -> type[Job]:
        """The table of the rows."""

    def prepare(self) -> None:
        """Warm up; called once in a worker thread before the first claim."""

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        """Process the job and set its final status; return it to the queue if `stopping` is set."""

    def close(self) -> None:
        """Release what `prepare` acquired."""

    @property
    def device(self) -> str:
        """Description of the device; empty while unknown."""

    @property
    def machine(self) -> str:
        """What the precision of images depends on; empty if unknown, and for other work."""


class JobLoop:
    """Processes the rows of one table until it is stopped."""

    def __init__(
        self,
        database: Database,
        work: Work,
        *,
        lease_seconds: float,
        threads: int = 1,
        wants_gpu: bool = False,
    ) -> None:
        self.work = work
        self.stopping = threading.Event()
        self._database = database
        self._lease_seconds = lease_seconds
        self._wants_gpu = wants_gpu
        self._changed = threading.Condition()
        self._wakeups = 0
        self._seen = 0
        self._busy = 0
        self._done = 0
        name = work.table.queue
        self._workers = [
            threading.Thread(target=self._run_worker, args=(number,), name=f"{name}-{number}")
            for number in range(threads)
        ]
        self._keeper = threading.Thread(
            target=self._announce_and_reap, name=f"{name}-keeper", daemon=True
        )
        self._prepared = threading.Event()
        self._left = threading.Event()

    def start(self) -> None:
        """Start the threads; returns at once."""
        for thread in (*self._workers, self._keeper):
            thread.start()

    def wake(self) -> None:
        """Check for work now; returns at once."""
        with self._changed:
            self._wakeups += 1
            self._changed.notify_all()

    def serve_wakeup(self) -> None:
        """Check for work now; return when a job is done or none is waiting.

        Blocking keeps Celery from passing further wake-ups to a busy worker.
        """
        with self._changed:
            self._wakeups += 1
            mine, done = self._wakeups, self._done
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._done > done
                    or (self._busy == 0 and self._seen >= mine)
                    or self.stopping.is_set()
                )
            )

    def request_stop(self) -> None:
        """Make the threads return their jobs and end; does not wait, safe in a signal handler."""
        self.stopping.set()
        threading.Thread(
            target=self._notify_threads, daemon=True
        ).start()  # the interrupted frame may hold the lock

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all threads to end; False on timeout."""
        for thread in self._workers:
            thread.join(timeout)
        alive = any(thread.is_alive() for thread in self._workers)
        self._left.set()
        if self._keeper.is_alive():
            self._keeper.join(timeout)
        return not alive

    def _notify_threads(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run_worker(self, number: int) -> None:
        try:
            if number == 0:
                self._prepare_work()
            self._prepared.wait()
            while not self.stopping.is_set():
                with self._changed:
                    self._seen = self._wakeups
                    self._busy += 1
                try:
                    self._process_waiting_jobs()
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
        return self._wakeups > since or self.stopping.is_set()

    def _prepare_work(self) -> None:
        try:
            self.work.prepare()
        except Exception:
            log.exception("Warming up failed; the first job will report the cause.")
        finally:
            self._prepared.set()

    def _process_waiting_jobs(self) -> None:
        while not self.stopping.is_set():
            try:
                claimed = self._claim_job()
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot query the database for jobs, will retry: %s", error)
                return
            if claimed is None:
                return
            self._process_job(*claimed)
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _claim_job(self) -> tuple[Job, Claim] | None:
        with self._database.read() as session:
            if not jobs.has_waiting(session, self.work.table):
                return None
        with self._database.write() as session:
            return jobs.claim_next(session, self.work.table, lease_seconds=self._lease_seconds)

    def _process_job(self, job: Job, claim: Claim) -> None:
        label = f"{self.work.table.__tablename__} {claim.job_id}"
        log.info("%s: attempt %s started.", label, job.attempt)
        with Lease(self._database, self.work.table, claim, seconds=self._lease_seconds) as lease:
            try:
                self.work.run(job, lease, self.stopping)
            except LostLease as lost:
                log.warning("%s: %s", label, lost)
            except Exception as error:
                log.exception("%s: the worker failed.", label)
                self._retry_job(claim, error)

    def _retry_job(self, claim: Claim, error: Exception) -> None:
        """Queue a job again after an internal error; fail it with the trace after the last try."""
        trace = "".join(traceback.format_exception(error))
        sentence = f"Internal error in the worker: {type(error).__name__}: {error}"
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
            log.exception("Could not store the error; the lease will expire.")

    def _announce_and_reap(self) -> None:
        """Reap expired jobs of other workers, and update the presence of this one."""
        tick = min(TICK_SECONDS, self._lease_seconds / REAPS_PER_LEASE)
        own_presence = presence.Presence(self.work.table.queue)
        while True:
            try:
                reap_expired(self._database)
                device = self.work.device
                unused = unused_gpu(device) if self._wants_gpu else None
                own_presence.announce(
                    self._database,
                    device=device,
                    machine=self.work.machine,
                    problem=unused.problem if unused else "",
                    remedy=unused.remedy if unused else "",
                )
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot reach the database, will retry: %s", error)
            if self._left.wait(tick):
                break
        try:
            own_presence.leave(self._database)
        except sa.exc.SQLAlchemyError as error:
            log.warning("Could not remove this worker's presence: %s", error)


def reap_expired(database: Database) -> int:
    """Release the jobs whose leases have expired, in every table; return their number."""
    with database.read() as session:
        now = database_now(session)
        expired = [table for table in JOB_TABLES if session.exec(_expired_jobs(table, now)).first()]
    reaped = 0
    for table in expired:
        with database.write() as session:
            reaped += jobs.reap(session, table)
    return reaped


def _expired_jobs(table: type[Job], now: datetime) -> Any:
    silent = (col(table.status) == JobStatus.RUNNING) & (col(table.lease_until) < now)
    return select(table.id).where(silent).limit(1)
