"""Quotas of people: what each may take, and who has room for another job."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.actor import MAX_WAITING, Limits
from app.registry.db import LIMITS, PRINCIPAL
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.job_kinds.queues import Queue
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.all import JOB_TABLES
from app.registry.tables.jobs import Job
from app.registry.tables.people import User

COUNTED = [table for table in JOB_TABLES if table.queue != Queue.IO]
"""The tables of jobs that wait for a device: runs and renders."""
COUNTS = "waiting jobs"  # key in `Session.info`: how many may wait, wait, and are new, by owner
TOO_MANY = (
    "At most {:,} runs and images of one person may wait at once, and {:,} do, so nothing was "
    "started. Cancel some of them, ask for fewer, or wait until some have started."
)


def limits_of(session: Session, user: User) -> Limits:
    """What a person may take: as was said of them, else by the settings; nothing without accounts.

    In their columns null is the setting, and 0 is no limit.
    """
    usual: Limits | None = session.info.get(LIMITS)
    if usual is None:
        return Limits()
    return Limits(
        _limit(user.disk_bytes, usual.disk_bytes),
        _limit(user.device_minutes, usual.device_minutes),
        _limit(user.waiting_jobs, usual.waiting_jobs),
    )


def _limit(own: int | None, usual: int | None) -> int | None:
    return usual if own is None else own or None


def waiting_jobs(session: Session, user_id: int) -> int:
    """The number of runs and renders of a person that wait, seen or not."""
    waiting = [
        sa.select(sa.func.count())
        .where(col(table.owner_id) == user_id, col(table.status) == JobStatus.QUEUED)
        .scalar_subquery()
        for table in COUNTED
    ]
    found: int = session.connection().execute(sa.select(sum(waiting, sa.literal(0)))).scalar_one()
    return found


def take_place(session: Session, job: Job) -> None:
    """Count a new job that a person creates, until this transaction ends. Raises QuotaUsedUp.

    The row of its owner is locked, so that nobody else counts meanwhile. What workers create is
    part of something that was counted before, or the evaluation of it.
    """
    if job.queue == Queue.IO or session.info.get(PRINCIPAL) is None:
        return
    counted: dict[int, tuple[int, int, int]] = session.info.setdefault(COUNTS, {})
    if job.owner_id not in counted:
        user = session.get(User, job.owner_id)
        if user is None or limits_of(session, user).waiting_jobs is None:
            return
        session.refresh(user, with_for_update=True)
        most = limits_of(session, user).waiting_jobs or MAX_WAITING
        counted[user.key] = (most, waiting_jobs(session, user.key), 0)
    most, used, added = counted[job.owner_id]
    if used + added >= most:
        raise QuotaUsedUp(Quota.WAITING, TOO_MANY.format(most, used), used=used, limit=most)
    counted[job.owner_id] = (most, used, added + 1)
