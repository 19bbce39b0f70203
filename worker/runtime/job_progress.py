"""Progress, cancellation and refusal of io jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from app.registry.config import Settings
from app.registry.db import Database
from app.registry.job_kinds.kinds import JobResult, StepProgress
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import rights
from app.registry.jobs import service as jobs
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait

LOOK_SECONDS = 0.5
MAX_PAUSE_SECONDS = 0.5  # after a task in the background
log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The job cannot be done; the message gives the reason."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    @property
    def columns(self) -> dict[str, str]:
        """The columns of a job that fails for this reason."""
        return {"error": str(self), "error_code": self.code}


class JobProcessFailed(Exception):
    """The process of a job ended by itself, or failed with an error of this type and text."""


class JobCanceled(Exception):
    """A cancel of the job was requested; `columns`: those of the job that say what is left."""

    def __init__(self, **columns: str) -> None:
        super().__init__()
        self.columns = columns


class WorkerStopping(Exception):
    """The worker is stopping; the job returns to the queue."""


class OtherJobsWaiting(WorkerStopping):
    """Another job needs the thread; the job returns to the queue and continues later."""


def require_not_canceled(session: Session, lease: Lease) -> None:
    """Lock the job's row; raise JobCanceled if a cancel was requested, LostLease if not owned.

    A cancel that is requested later waits for this transaction and finds the job finished.
    """
    jobs.require_owner(session, IoJob, lease.claim)
    if jobs.is_canceled(session, IoJob, lease.claim):
        raise JobCanceled


def finish(session: Session, lease: Lease, status: JobStatus, **values: Any) -> None:
    """Finish a job with these columns. Raises LostLease."""
    jobs.finish(session, IoJob, lease.claim, status, **values)


def succeed(session: Session, lease: Lease, result: JobResult) -> None:
    """Finish a job with its result. Raises LostLease."""
    finish(session, lease, JobStatus.SUCCEEDED, result=result.stored())


class _JobCheck:
    """Checks whether a job has to stop; the row is looked at at most every `LOOK_SECONDS`."""

    def __init__(self, database: Database, lease: Lease, stopping: threading.Event) -> None:
        self._database = database
        self._lease = lease
        self._stopping = stopping
        self._looked = 0.0

    def _check(self, is_canceled: Callable[[], bool]) -> None:
        """Raise JobCanceled, WorkerStopping or LostLease; an outage of the database is ignored."""
        self._lease.check()
        if self._stopping.is_set():
            raise WorkerStopping
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            canceled = is_canceled()
        except sa.exc.SQLAlchemyError as error:
            if reason_to_wait(error) is None:
                raise
            log.warning("Could not look at a job: %s", error)
            return
        if canceled:
            raise JobCanceled


class JobProgress(_JobCheck):
    """Callback for the parts of a job: stores progress and checks whether to stop.

    Raises JobCanceled, WorkerStopping or LostLease.
    """

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` parts are done."""
        self._lease.check()
        self._lease.note_part()
        self._check(lambda: self._write(StepProgress(done=done, total=total)))

    def _write(self, progress: StepProgress) -> bool:
        """Store the progress; True if a cancel was requested."""
        claim = self._lease.claim
        with self._database.write() as session:
            jobs.update_owned(session, IoJob, claim, result=progress.stored())
            return jobs.is_canceled(session, IoJob, claim)


class JobWatch(_JobCheck):
    """Callback for a job without parts: checks several times a second whether to stop.

    Raises JobCanceled, WorkerStopping or LostLease.
    """

    def __init__(self, database: Database, lease: Lease, stopping: threading.Event) -> None:
        super().__init__(database, lease, stopping)
        self._looked = time.monotonic()

    def __call__(self) -> None:
        """Check it."""
        self._check(self._read)

    def _read(self) -> bool:
        """True if a cancel was requested."""
        with self._database.read() as session:
            return session.get_one(IoJob, self._lease.claim.job_id).cancel_requested


@dataclass(frozen=True)
class IoWork:
    """An io job that a worker carries out, with what its handler needs.

    `scratch`: a folder for temporary files. `stopping`: set when the worker stops.
    """

    settings: Settings
    database: Database
    store: BlobStore
    job: IoJob
    lease: Lease
    scratch: Path
    stopping: threading.Event

    @property
    def subject_id(self) -> int:
        """The id of the row that the job is about."""
        assert self.job.subject_id is not None
        return self.job.subject_id

    def seeing_as_owner(self, session: Session) -> AbstractContextManager[None]:
        """Within the block a session finds only what the owner of the job may see."""
        return rights.seeing_as_owner(session, self.job, accounts=self.settings.accounts)

    def watch(self) -> JobWatch:
        """A callback that checks whether the job has to stop."""
        return JobWatch(self.database, self.lease, self.stopping)

    def give_way(self) -> None:
        """Raise OtherJobsWaiting if an io job that goes before this one waits for a thread."""
        with self.database.read() as session:
            if jobs.has_waiting(session, IoJob, before=self.job.priority):
                raise OtherJobsWaiting

    def give_back(self) -> None:
        """Return the job to the queue. Raises LostLease."""
        with self.database.write() as session:
            jobs.give_back(session, IoJob, self.lease.claim)

    def note(self, result: JobResult) -> None:
        """Store a result, or progress, of the job while it runs. Raises LostLease."""
        with self.database.write() as session:
            jobs.update_owned(session, IoJob, self.lease.claim, result=result.stored())

    def succeed(self, result: JobResult) -> None:
        """Finish the job with its result. Raises LostLease."""
        with self.database.write() as session:
            succeed(session, self.lease, result)

    def finish(self, status: JobStatus, **values: Any) -> None:
        """Finish the job with these columns. Raises LostLease."""
        with self.database.write() as session:
            finish(session, self.lease, status, **values)

    def fail(self, code: str, sentence: str) -> None:
        """Finish the job as failed for this reason. Raises LostLease."""
        self.finish(JobStatus.FAILED, error=sentence, error_code=code)

    @contextmanager
    def cancelable(self, **canceled: Any) -> Iterator[JobProgress]:
        """Give a JobProgress; if it stops the job, return the job to the queue or mark it canceled.

        `canceled`: columns to set on a canceled job.
        """
        try:
            yield JobProgress(self.database, self.lease, self.stopping)
        except WorkerStopping:
            self.give_back()
        except JobCanceled as error:
            self.finish(JobStatus.CANCELED, **canceled, **error.columns)

    def carry_out(self, tasks: Iterable[Callable[[], None]], *, total: int = 0) -> None:
        """Carry out tasks in the background, then finish the job with their number.

        They use at most half of a core, and give the thread to any other job that waits for one.
        `total`: the expected number, if it is known.
        """
        with self.cancelable() as progress:
            done = 0
            for task in tasks:
                progress(done, max(total, done + 1))
                self.give_way()
                started = time.monotonic()
                task()
                done += 1
                self.stopping.wait(min(time.monotonic() - started, MAX_PAUSE_SECONDS))
            self.succeed(StepProgress(done=done, total=done))


Handler = Callable[[IoWork], None]
"""Carries out a job."""
