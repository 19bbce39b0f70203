"""The only place where a job changes its state: claim, lease, fence, finish, cancel, reap."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import database_now, hint_after_commit
from app.registry.errors import Conflict
from app.registry.jobs.kinds import JobArgs
from app.registry.jobs.models import DEFAULT_MAX_ATTEMPTS, Event, IoJob, Job
from app.registry.jobs.states import JobStatus, can_move

JobT = TypeVar("JobT", bound=Job)
GAVE_UP = "The worker stopped {attempts} times while it worked on this, so it was given up."


ENDED = {JobStatus.SUCCEEDED: "finished", JobStatus.FAILED: "failed"}


class LostLease(Exception):
    """This worker no longer owns the job; it must stop and write nothing more."""


@dataclass(frozen=True)
class Claim:
    """A job and the token that proves its ownership."""

    job_id: int
    token: str


def record(session: Session, job: type[Job], job_id: int, kind: str, **data: Any) -> None:
    """Append an event of this job."""
    session.add(Event(subject=str(job.__tablename__), subject_id=job_id, kind=kind, data=data))


def transition(
    session: Session,
    job: type[Job],
    job_id: int,
    *,
    old: JobStatus,
    new: JobStatus,
    token: str | None = None,
    expired_before: datetime | None = None,
    **values: Any,
) -> bool:
    """Move a job by compare-and-set; False when somebody else moved it first.

    `token`: the move is made only while this owner holds the job; `expired_before`: only if its
    lease ended before that time. Other values are columns set in the same statement.
    """
    if not can_move(old, new):
        raise ValueError(f"A job cannot go from {old} to {new}.")
    if new is not JobStatus.RUNNING:
        values |= {"owner_token": None, "lease_until": None}
    if not new.is_active and new is not JobStatus.PAUSED:
        values["finished_at"] = database_now(session)
    statement = sa.update(job).where(col(job.id) == job_id, col(job.status) == old)
    if token is not None:
        statement = statement.where(col(job.owner_token) == token)
    if expired_before is not None:
        statement = statement.where(col(job.lease_until) < expired_before)
    moved = session.connection().execute(statement.values(status=new, **values)).rowcount == 1
    if moved:
        record(session, job, job_id, new, was=old, **_plain(values))
        if new is JobStatus.QUEUED:
            hint_after_commit(session, job.queue)
    return moved


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """What is worth keeping in the event: the number of the attempt, the reason of a failure."""
    kept = ("attempt", "error_code", "error")
    return {key: values[key] for key in kept if isinstance(values.get(key), int | str)}


def enqueue(session: Session, job: JobT) -> JobT:
    """Store a new job; its worker is woken after the commit."""
    session.add(job)
    session.flush()
    record(session, type(job), job.key, JobStatus.QUEUED)
    hint_after_commit(session, job.queue)
    return job


def claim_next(
    session: Session, job: type[JobT], *, lease_seconds: float
) -> tuple[JobT, Claim] | None:
    """The best waiting job, now owned by the caller; None when there is nothing to do."""
    waiting = (
        select(job.id, job.attempt)
        .where(
            col(job.status) == JobStatus.QUEUED,
            col(job.cancel_requested).is_(False),
            job.claimable(),
        )
        .order_by(col(job.priority), col(job.created_at), col(job.id))
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite ignores it: the writer holds the file's lock
    )
    job.lock_claims(session)
    found = session.exec(waiting).first()
    if found is None or found[0] is None:
        return None
    job_id, attempts = found
    now = database_now(session)
    claim = Claim(job_id, secrets.token_hex(16))
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
    """Keep the job for another `lease_seconds`; LostLease when it is no longer ours."""
    update_owned(
        session,
        job,
        claim,
        lease_until=database_now(session) + timedelta(seconds=lease_seconds),
    )


def update_owned(session: Session, job: type[Job], claim: Claim, **values: Any) -> None:
    """Write columns of a job that this claim owns; LostLease otherwise (the fence)."""
    if not values:
        raise ValueError("Nothing to write; `require_owner` only checks.")
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
        raise LostLease(f"{job.__tablename__} {claim.job_id} belongs to another worker now.")


def require_owner(session: Session, job: type[Job], claim: Claim) -> None:
    """Take part in a write only as the owner: locks the row, LostLease when it is not ours."""
    update_owned(session, job, claim, owner_token=claim.token)


def finish(
    session: Session, job: type[Job], claim: Claim, status: JobStatus, **values: Any
) -> None:
    """Move an owned job to a final state, or back to the queue; LostLease when not ours."""
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
        raise LostLease(f"{job.__tablename__} {claim.job_id} belongs to another worker now.")


def give_back(session: Session, job: type[Job], claim: Claim) -> None:
    """Return an owned job to the queue without counting the attempt (a worker that shuts down)."""
    finish(session, job, claim, JobStatus.QUEUED, attempt=job.attempt - 1)


def give_up_or_retry(
    session: Session, job: type[Job], claim: Claim, *, code: str, error: str, trace: str = ""
) -> JobStatus:
    """Queue an owned job again after a crash, or fail it when its attempts are used up."""
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
    """Ask for the end of a job: at once when it waits, else as soon as its worker looks.

    The row is then what it has become.
    """
    if row.state.is_final:
        if row.state is JobStatus.CANCELED:
            return JobStatus.CANCELED  # asking twice is no mistake
        raise Conflict(f"This has {ENDED[row.state]} already; there is nothing left to cancel.")
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
    raise Conflict("This ended just now; there is nothing left to cancel.")


def reap(session: Session, job: type[Job]) -> int:
    """Take back every job whose lease ran out; gives how many.

    Safe to run anywhere and at the same time: each expiry is handled once.
    """
    now = database_now(session)
    expired = session.exec(
        select(job).where(col(job.status) == JobStatus.RUNNING, col(job.lease_until) < now)
    ).all()
    reaped = 0
    for row in expired:
        if row.cancel_requested:
            values: dict[str, Any] = {"new": JobStatus.CANCELED}
        elif row.attempt >= row.max_attempts:
            values = {
                "new": JobStatus.FAILED,
                "error_code": "worker_lost",
                "error": GAVE_UP.format(attempts=row.attempt),
            }
        else:
            values = {"new": JobStatus.QUEUED}
        reaped += transition(
            session,
            job,
            row.key,
            old=JobStatus.RUNNING,
            token=row.owner_token,
            expired_before=now,
            **values,
        )
    return reaped


def has_waiting(session: Session, job: type[Job]) -> bool:
    """True when a job of this kind waits for a worker."""
    waiting = select(job.id).where(col(job.status) == JobStatus.QUEUED, job.claimable()).limit(1)
    return session.exec(waiting).first() is not None


def enqueue_io(
    session: Session,
    args: JobArgs,
    *,
    subject_id: int | None = None,
    priority: int = 0,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
) -> IoJob:
    """Store a job for the io worker; its kind is that of the arguments."""
    job = IoJob(
        kind=args.kind,
        subject_id=subject_id,
        args=args.stored(),
        priority=priority,
        max_attempts=max_attempts,
    )
    return enqueue(session, job)
