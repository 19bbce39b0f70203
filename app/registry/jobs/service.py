"""The only place where a job changes its status: claim, fence, finish, cancel, release."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.actor import FIRST_USER, Visibility, making_for
from app.registry.db import Database, advisory_lock, database_now, wake_after_commit
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.job_types import JOB_TYPES
from app.registry.job_kinds.kinds import JobArgs, JobKind
from app.registry.job_kinds.states import ACTIVE, JobStatus, can_move
from app.registry.jobs import quotas
from app.registry.jobs.owner import new_token
from app.registry.jobs.rights import making_as_owner
from app.registry.tables.jobs import DEFAULT_MAX_ATTEMPTS, Event, IoJob, Job

JobT = TypeVar("JobT", bound=Job)
TOO_MANY_ATTEMPTS = (
    "The worker stopped {attempts} times in a row while processing this, so it failed. Check its "
    "log."
)
DELETED = "deleted"  # the kind of the last event of a job that was deleted for good
END_WORDS = {JobStatus.SUCCEEDED: "finished", JobStatus.FAILED: "failed"}


class LostLease(Exception):
    """This worker no longer owns the job; it must stop and write nothing more."""


@dataclass(frozen=True)
class Claim:
    """A job and the token that proves its ownership."""

    job_id: int
    token: str
    is_first: bool = False  # the job was never claimed before


def record(session: Session, job: type[Job], job_id: int, kind: str, **data: Any) -> Event:
    """Append an event to a job."""
    now = database_now(session)
    subject = str(job.__tablename__)
    event = Event(at=now, subject=subject, subject_id=job_id, kind=kind, data=data)
    session.add(event)
    return event


def forget_texts(session: Session, job: type[Job], job_ids: Sequence[int]) -> None:
    """Delete the texts of the events of jobs that are deleted for good, and say that they were."""
    of_jobs = (col(Event.subject) == str(job.__tablename__)) & col(Event.subject_id).in_(job_ids)
    session.connection().execute(sa.update(Event).where(of_jobs).values(data={}))
    for job_id in job_ids:
        record(session, job, job_id, DELETED)


def transition(
    session: Session,
    job: type[Job],
    job_id: int,
    *,
    old: JobStatus,
    new: JobStatus,
    token: str | None = None,
    lease_was: datetime | None = None,
    **values: Any,
) -> bool:
    """Change a job's status by compare-and-set; False if its status was not `old`.

    `token`: only while this owner holds the job. `lease_was`: only if its lease is
    still this one, not renewed. Other values are columns set in the same statement.
    """
    if not can_move(old, new):
        raise ValueError(f"A job cannot change from {old} to {new}.")
    values = dict.fromkeys(job.of_a_status) | values
    if new is not JobStatus.RUNNING:
        values |= {"owner_token": None, "lease_until": None}
    if not new.is_active and new is not JobStatus.PAUSED:
        values["finished_at"] = database_now(session)
    statement = sa.update(job).where(col(job.id) == job_id, col(job.status) == old)
    if token is not None:
        statement = statement.where(col(job.owner_token) == token)
    if lease_was is not None:
        statement = statement.where(col(job.lease_until) == lease_was)
    moved = session.connection().execute(statement.values(status=new, **values)).rowcount == 1
    if moved:
        record(session, job, job_id, new, was=old, **_event_data(values))
        if new is JobStatus.QUEUED:
            wake_after_commit(session, job.queue)
        elif not new.is_active and (found := job.follow_up(session, job_id)):
            with making_as_owner(session, session.get_one(job, job_id)):
                enqueue_io(session, found[0], subject_id=found[1])
    return moved


def _event_data(values: dict[str, Any]) -> dict[str, Any]:
    """Values to keep in the event: the number of the attempt, the reason for a failure."""
    kept = ("attempt", "error_code", "error")
    return {key: values[key] for key in kept if isinstance(values.get(key), int | str)}


def enqueue(session: Session, job: JobT) -> JobT:
    """Store a new job; a worker is woken after the commit. Raises QuotaUsedUp."""
    quotas.take_place(session, job)
    job.created_at = database_now(session)  # the clock of all its other times
    session.add(job)
    session.flush()
    record(session, type(job), job.key, JobStatus.QUEUED)
    wake_after_commit(session, job.queue)
    return job


def store_finished(session: Session, job: JobT) -> JobT:
    """Store a new job whose result is known already; no worker is woken."""
    job.status = JobStatus.SUCCEEDED
    job.started_at = job.finished_at = database_now(session)
    session.add(job)
    session.flush()
    record(session, type(job), job.key, JobStatus.SUCCEEDED)
    return job


def claim_next(
    session: Session, job: type[JobT], *, lease_seconds: float, queue: str | None = None
) -> tuple[JobT, Claim] | None:
    """Claim the next waiting job for this queue, that of the table if None; None: there is none."""
    waiting = (
        select(job.id, job.attempt, job.started_at)
        .where(
            col(job.status) == JobStatus.QUEUED,
            col(job.cancel_requested).is_(False),
            job.claimable(session, queue or job.queue),
        )
        .order_by(*job.queue_order())
        .limit(1)
        .with_for_update(skip_locked=True)  # ignored by SQLite, where the writer locks the file
    )
    job.lock_claims(session)
    found = session.exec(waiting).first()
    if found is None or found[0] is None:
        return None
    job_id, attempts, started_at = found
    now = database_now(session)
    claim = Claim(job_id, new_token(), is_first=started_at is None)
    owned = transition(
        session,
        job,
        job_id,
        old=JobStatus.QUEUED,
        new=JobStatus.RUNNING,
        owner_token=claim.token,
        lease_until=now + timedelta(seconds=lease_seconds),
        attempt=attempts + 1,
        started_at=sa.func.coalesce(job.started_at, now),
    )
    if not owned:
        return None
    return session.get_one(job, job_id, populate_existing=True), claim


def renew(session: Session, job: type[Job], claim: Claim, *, lease_seconds: float) -> None:
    """Extend the lease by `lease_seconds`. Raises LostLease if another worker owns the job."""
    update_owned(
        session,
        job,
        claim,
        lease_until=database_now(session) + timedelta(seconds=lease_seconds),
    )


def update_owned(session: Session, job: type[Job], claim: Claim, **values: Any) -> None:
    """Write columns of an owned job. Raises LostLease if another worker owns it (the fence)."""
    if not values:
        raise ValueError("No values to write. Use `require_owner` to check ownership.")
    statement = (
        sa.update(job)
        .where(
            col(job.id) == claim.job_id,
            col(job.owner_token) == claim.token,
            col(job.status) == JobStatus.RUNNING,
        )
        .values(**values)
    )
    if session.connection().execute(statement).rowcount != 1:
        raise _lost(job, claim)


def require_owner(session: Session, job: type[Job], claim: Claim) -> None:
    """Lock the row of an owned job. Raises LostLease if another worker owns it."""
    update_owned(session, job, claim, owner_token=claim.token)


def is_canceled(session: Session, job: type[Job], claim: Claim) -> bool:
    """True if a cancel of an owned job was requested. Raises LostLease as `require_owner`."""
    owned = select(job.cancel_requested).where(
        col(job.id) == claim.job_id, col(job.owner_token) == claim.token
    )
    canceled = session.exec(owned).first()
    if canceled is None:
        raise _lost(job, claim)
    return canceled


def _lost(job: type[Job], claim: Claim) -> LostLease:
    return LostLease(f"{job.__tablename__} {claim.job_id} belongs to another worker now.")


def finish(
    session: Session, job: type[Job], claim: Claim, status: JobStatus, **values: Any
) -> None:
    """Set an owned job's final status, or return it to the queue. Raises LostLease.

    The device time of this attempt is its owner's.
    """
    moved = transition(
        session,
        job,
        claim.job_id,
        old=JobStatus.RUNNING,
        new=status,
        token=claim.token,
        **values,
    )
    if not moved:
        raise _lost(job, claim)
    quotas.book(session, job, claim.job_id)


def give_back(
    session: Session, job: type[Job], claim: Claim, *, waits_for: str | None = None
) -> None:
    """Return an owned job to the queue without counting the attempt.

    The worker is stopping, or the job `waits_for` something that is not its fault. A job that is to
    be canceled ends.
    """
    row = session.get_one(job, claim.job_id, populate_existing=True)
    if row.cancel_requested:
        finish(session, job, claim, JobStatus.CANCELED)
    else:
        finish(session, job, claim, JobStatus.QUEUED, attempt=job.attempt - 1, waits_for=waits_for)


def give_up_or_retry(
    session: Session, job: type[Job], claim: Claim, *, code: str, error: str, trace: str = ""
) -> JobStatus:
    """Queue an owned job again after an error, or fail it after the last attempt."""
    row = session.get_one(job, claim.job_id, populate_existing=True)
    if row.cancel_requested:
        finish(session, job, claim, JobStatus.CANCELED)
        return JobStatus.CANCELED
    if row.attempt >= row.max_attempts:
        finish(
            session, job, claim, JobStatus.FAILED, error_code=code, error=error, error_trace=trace
        )
        return JobStatus.FAILED
    finish(session, job, claim, JobStatus.QUEUED)
    return JobStatus.QUEUED


def request_cancel(session: Session, job: type[JobT], row: JobT) -> JobStatus:
    """Cancel a job: immediately if it is queued, else when its worker checks. Refreshes the row."""
    if row.state.is_final:
        if row.state is JobStatus.CANCELED:
            return JobStatus.CANCELED  # idempotent
        raise Conflict(f"This has already {END_WORDS[row.state]}, so it cannot be canceled.")
    for waiting in (JobStatus.QUEUED, JobStatus.PAUSED):
        if transition(
            session, job, row.key, old=waiting, new=JobStatus.CANCELED, cancel_requested=True
        ):
            session.refresh(row)
            return JobStatus.CANCELED
    flagged = (
        sa.update(job)
        .where(col(job.id) == row.key, col(job.status) == JobStatus.RUNNING)
        .values(cancel_requested=True)
    )
    if session.connection().execute(flagged).rowcount == 1:
        record(session, job, row.key, "cancel_requested")
        session.refresh(row)
        return JobStatus.RUNNING
    raise Conflict("This has just ended, so it cannot be canceled.")


def cancel_all(session: Session, job: type[JobT], rows: Iterable[JobT]) -> None:
    """Cancel these jobs, as far as they have not just ended."""
    for row in rows:
        with suppress(Conflict):
            request_cancel(session, job, row)


def release(
    session: Session, job: type[Job], job_id: int, *, token: str, lease_was: datetime | None
) -> bool:
    """Take a running job from a worker that is gone: back to the queue, or to its end.

    False if it was renewed, released or finished meanwhile, so concurrent callers do it once.
    """
    row = session.get(job, job_id, populate_existing=True)
    if row is None:
        return False
    if row.cancel_requested:
        values: dict[str, Any] = {"new": JobStatus.CANCELED}
    elif row.attempt >= row.max_attempts:
        values = {
            "new": JobStatus.FAILED,
            "error_code": "worker_lost",
            "error": TOO_MANY_ATTEMPTS.format(attempts=row.attempt),
        }
    else:
        values = {"new": JobStatus.QUEUED}
    return transition(
        session,
        job,
        job_id,
        old=JobStatus.RUNNING,
        token=token,
        lease_was=lease_was,
        **values,
    )


def has_waiting(
    session: Session, job: type[Job], *, before: int | None = None, queue: str | None = None
) -> bool:
    """True if a job of this table is waiting for a worker; `before`: one that goes before these.

    `queue`: of the worker; None for that of the table.
    """
    can_start = job.claimable(session, queue or job.queue)
    waiting = select(job.id).where(col(job.status) == JobStatus.QUEUED, can_start).limit(1)
    if before is not None:
        waiting = waiting.where(col(job.priority) < before)
    return session.exec(waiting).first() is not None


def enqueue_io(
    session: Session,
    args: JobArgs,
    *,
    subject_id: int | None = None,
    priority: int = 0,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
) -> IoJob:
    """Store an io job; its kind is that of the arguments, which says whose workers carry it out."""
    job = IoJob(
        kind=args.kind,
        subject_id=subject_id,
        args=args.stored(),
        priority=priority,
        max_attempts=max_attempts,
    )
    wake_after_commit(session, JOB_TYPES[args.kind].queue)
    return enqueue(session, job)


def get_io(session: Session, job_id: int, noun: str, *kinds: JobKind) -> IoJob:
    """Look up an io job of one of these kinds, which people call so. Raises NotFound."""
    job = session.get(IoJob, job_id)
    if job is None or job.kind not in kinds:
        raise NotFound(f"There is no such {noun}.")
    return job


def was_ordered(session: Session, kind: JobKind, *, retry_after: timedelta = timedelta()) -> bool:
    """True if an io job of this kind is active, or failed less than `retry_after` ago."""
    failed = sa.and_(
        col(IoJob.status) == JobStatus.FAILED,
        col(IoJob.finished_at) >= database_now(session) - retry_after,
    )
    recent = select(IoJob.id).where(IoJob.kind == kind, failed | col(IoJob.status).in_(ACTIVE))
    return session.exec(recent.limit(1)).first() is not None


def orders_if_due(
    is_due: Callable[[Session], bool], args: JobArgs, *, priority: int
) -> Callable[[Database], IoJob | None]:
    """A function that stores an io job which nobody requests, if it is due.

    Of concurrent callers, only one stores it.
    """

    def order_if_due(database: Database) -> IoJob | None:
        with database.read() as session:
            if not is_due(session):
                return None
        with database.write() as session:
            advisory_lock(session, zlib.crc32(args.kind.encode()))
            with making_for(FIRST_USER, Visibility.STUDIO):
                return enqueue_io(session, args, priority=priority) if is_due(session) else None

    return order_if_due
