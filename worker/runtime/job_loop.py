"""The job loop of a worker: threads that claim rows of one queue, process them and keep leases."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa

from app.registry.db import Database, Session
from app.registry.job_kinds.states import JobStatus, Queue
from app.registry.jobs import presence, rights
from app.registry.jobs import service as jobs
from app.registry.jobs.reaper import Reaper
from app.registry.jobs.service import Claim, LostLease
from app.registry.tables.jobs import IoJob, Job
from worker.runtime.device import unused_gpu
from worker.runtime.job_progress import JobProcessFailed
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import (
    WAITS_FOR_DATABASE,
    GaveUp,
    Pause,
    reason_to_wait,
    wait_out,
)

IDLE_SECONDS = 5.0  # polling interval of an idle loop, in case a wake-up was lost
TICK_SECONDS = 5.0
LOOKS_PER_LEASE = 4

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
        """The machine that sets the precision of images; empty if unknown, and for other work."""

    @property
    def memory_bytes(self) -> int | None:
        """The memory of the GPU that it trains on; None without one, and for other work."""


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
        check_storage: Callable[[], None] = lambda: None,
        accounts: bool = False,
    ) -> None:
        """`check_storage` raises while the storage cannot be used: then nothing is claimed.

        `accounts`: what a job makes belongs to its owner, and is private if its subject is.
        """
        self.work = work
        self.stopping = threading.Event()
        self._pause = Pause(check_storage, self.stopping)
        self._database = database
        self._lease_seconds = lease_seconds
        self._wants_gpu = wants_gpu
        self._accounts = accounts
        self._changed = threading.Condition()
        self._wakeups = 0
        self._seen = 0
        self._busy = 0
        self._done = 0
        name = work.table.queue
        self._workers = [
            # daemons: a job that hangs in a system call must not keep the process from ending
            threading.Thread(
                target=self._run_worker, args=(number,), name=f"{name}-{number}", daemon=True
            )
            for number in range(threads)
        ]
        self._keeper = threading.Thread(
            target=self._announce_and_reap, name=f"{name}-keeper", daemon=True
        )
        self._prepared = threading.Event()
        self._looked = threading.Event()
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
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._workers:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
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
            # the job of a worker that was killed goes on before one that waited behind it
            self._looked.wait()
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
            self._pause.wait()
            try:
                claimed = None if self.stopping.is_set() else self._claim_job()
            except sa.exc.SQLAlchemyError as error:
                log.warning("Cannot query the database for jobs, will retry: %s", error)
                self._pause.begin(reason_to_wait(error) or WAITS_FOR_DATABASE)
                continue
            if claimed is None:
                return
            self._process_job(*claimed)
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _claim_job(self) -> tuple[Job, Claim] | None:
        """The next job of the own table, else an io job that is left to this queue."""
        queue, seconds = self.work.table.queue, self._lease_seconds
        for table in (self.work.table, IoJob) if queue == Queue.TRAIN else (self.work.table,):
            with self._database.read() as session:
                is_waiting = jobs.has_waiting(session, table, queue=queue)
            if is_waiting:
                with self._database.write() as session:
                    return jobs.claim_next(session, table, lease_seconds=seconds, queue=queue)
        return None

    def _process_job(self, job: Job, claim: Claim) -> None:
        table = type(job)
        label = f"{table.__tablename__} {claim.job_id}"
        log.info("%s: attempt %s started.", label, job.attempt)
        with Lease(self._database, table, claim, seconds=self._lease_seconds) as lease:
            try:
                if not self._is_refused(job, claim):
                    with self._owner_of(job):
                        self.work.run(job, lease, self.stopping)
                self._pause.note_success()
            except LostLease as lost:
                log.warning("%s: %s", label, lost)
            except GaveUp:
                self._write_end(partial(jobs.give_back, job=table, claim=claim))
            except Exception as error:
                reason = reason_to_wait(error)
                if reason is None:
                    log.exception("%s: the worker failed.", label)
                    self._write_end(partial(self._retry_job, table, claim=claim, error=error))
                else:
                    log.warning("%s returns to the queue: %s", label, reason)
                    self._pause.begin(reason)
                    back = partial(jobs.give_back, job=table, claim=claim, waits_for=reason)
                    self._write_end(back)

    def _owner_of(self, job: Job) -> AbstractContextManager[None]:
        if not self._accounts:
            return nullcontext()
        with self._database.read() as session:
            return rights.making_as_owner(session, job)

    def _is_refused(self, job: Job, claim: Claim) -> bool:
        """Fail a job at its first claim if its owner may not have it carried out any more."""
        if not self._accounts or not claim.is_first:
            return False
        with self._database.write() as session:
            reason = rights.refusal(session, job)
            if reason is not None:
                log.info("%s %s: %s", type(job).__tablename__, job.key, reason)
                ended = {"error": reason, "error_code": rights.CODE}
                jobs.finish(session, type(job), claim, JobStatus.FAILED, **ended)
        return reason is not None

    def _retry_job(
        self, table: type[Job], session: Session, *, claim: Claim, error: Exception
    ) -> None:
        """Queue a job again after an internal error; fail it with the trace after the last try."""
        trace = "".join(traceback.format_exception(error))
        text = str(error)
        if not isinstance(error, JobProcessFailed):
            text = f"{type(error).__name__}: {text}"
        sentence = f"Internal error in the worker: {text}"
        jobs.give_up_or_retry(
            session,
            table,
            claim,
            code="worker_error",
            error=sentence[:500],
            trace=trace,
        )

    def _write_end(self, write: Callable[[Session], None]) -> None:
        """Write how a job ended; during an outage, wait until it can be written."""

        def write_once() -> None:
            with self._database.write() as session:
                write(session)

        try:
            written = wait_out(write_once, is_over=self.stopping.wait, on_wait=self._pause.begin)
        except (LostLease, sa.exc.SQLAlchemyError) as error:
            log.warning("Could not write how a job ended: %s", error)
        else:
            if not written:
                log.warning("Could not write how a job ended; it will be released.")

    def _announce_and_reap(self) -> None:
        """Update the presence of this worker, and release the jobs of workers that are gone."""
        tick = min(TICK_SECONDS, self._lease_seconds / LOOKS_PER_LEASE)
        own_presence = presence.Presence(self.work.table.queue)
        reaper = Reaper(self._database, lease_seconds=self._lease_seconds)
        while True:
            try:
                device = self.work.device
                unused = unused_gpu(device) if self._wants_gpu else None
                own_presence.announce(
                    self._database,
                    device=device,
                    machine=self.work.machine,
                    memory_bytes=self.work.memory_bytes,
                    problem=self._pause.reason or (unused.problem if unused else ""),
                    remedy=unused.remedy if unused and not self._pause.reason else "",
                )
                reaper.look()
            except sa.exc.SQLAlchemyError as error:
                reaper.forget()
                log.warning("Cannot reach the database, will retry: %s", error)
            finally:
                self._looked.set()
            if self._left.wait(tick):
                break
        try:
            own_presence.leave(self._database)
        except sa.exc.SQLAlchemyError as error:
            log.warning("Could not remove this worker's presence: %s", error)
