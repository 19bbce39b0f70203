"""Quotas of people: what each may take, and who has room for another job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.actor import MAX_WAITING, Limits
from app.registry.db import LIMITS, PRINCIPAL, database_now, utcnow
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.job_kinds.states import JobStatus, Queue
from app.registry.tables.all import JOB_TABLES
from app.registry.tables.jobs import Event, Job
from app.registry.tables.people import DEVICE_DAYS, DeviceUse, User
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.wording import aware

COUNTED = tuple(table for table in JOB_TABLES if table.queue != Queue.IO)
"""The tables of jobs that wait for a device: runs and renders."""
HOUR = timedelta(hours=1)
COUNTS = "waiting jobs"  # key in `Session.info`: how many may wait, wait, and are new, by owner
TOO_MANY = (
    "Nothing was started. The limit on runs and images of one person that wait is {:,}, and the "
    "number that wait now is {:,}. Cancel some, ask for fewer, or wait until some have started."
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


def waiting_jobs(session: Session, user_id: int, tables: Sequence[type[Job]] = COUNTED) -> int:
    """The number of jobs of a person in these tables that wait, seen or not."""
    waiting = [
        sa.select(sa.func.count())
        .where(col(table.owner_id) == user_id, col(table.status) == JobStatus.QUEUED)
        .scalar_subquery()
        for table in tables
    ]
    found: int = session.connection().execute(sa.select(sum(waiting, sa.literal(0)))).scalar_one()
    return found


def take_place(session: Session, job: Job) -> None:
    """Count a new job that a person creates, until this transaction ends. Raises QuotaUsedUp.

    The row of its owner is locked, so that nobody else counts meanwhile. What workers create is
    part of something that was counted before, or the evaluation of it. Trainings that wait for
    device time keep no place from images.
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
        is_image = job.queue == Queue.RENDER
        tables = (type(job),) if is_image and waits_until(session, user.key) else COUNTED
        counted[user.key] = (most, waiting_jobs(session, user.key, tables), 0)
    most, used, added = counted[job.owner_id]
    if used + added >= most:
        raise QuotaUsedUp(Quota.WAITING, TOO_MANY.format(most, used), used=used, limit=most)
    counted[job.owner_id] = (most, used, added + 1)


def book(session: Session, table: type[Job], job_id: int) -> None:
    """Add the time since the newest claim of a run or render to the device time of its owner."""
    if table.queue == Queue.IO or session.info.get(LIMITS) is None:
        return
    job = session.get_one(table, job_id)
    if session.get(User, job.owner_id, with_for_update=True) is None:
        return
    claims = (Event.subject == str(table.__tablename__), Event.subject_id == job_id)
    claimed = select(Event.at).where(*claims, Event.kind == JobStatus.RUNNING)
    began = session.exec(claimed.order_by(col(Event.id).desc()).limit(1)).first()
    now = database_now(session)
    start = aware(began) if began else now
    hour = start.replace(minute=0, second=0, microsecond=0)
    while hour < now:
        key: dict[str, Any] = {"user_id": job.owner_id, "hour": hour, "queue": str(table.queue)}
        row = session.exec(select(DeviceUse).filter_by(**key)).first() or DeviceUse(**key)
        row.seconds += (min(now, hour + HOUR) - max(start, hour)).total_seconds()
        session.add(row)
        hour += HOUR


def device_seconds(session: Session, user_id: int) -> list[tuple[datetime, float]]:
    """The seconds of devices that a person used in 30 days, by hour, the oldest first."""
    seconds = sa.func.sum(col(DeviceUse.seconds))
    recent = (DeviceUse.user_id == user_id, DeviceUse.hour > utcnow() - DEVICE_DAYS)
    query = select(DeviceUse.hour, seconds).where(*recent).group_by(col(DeviceUse.hour))
    return [(aware(hour), used) for hour, used in session.exec(query.order_by(col(DeviceUse.hour)))]


def waits_until(session: Session, user_id: int) -> datetime | None:
    """When the next training of a person may start; None: their device time is not used up."""
    user = session.get(User, user_id) if session.info.get(LIMITS) else None
    most = limits_of(session, user).device_minutes if user else None
    hours = device_seconds(session, user_id) if most else []
    over = sum(seconds for _, seconds in hours) - 60 * (most or 0)
    until = None
    for hour, seconds in hours:
        if over < 0:
            break
        over -= seconds
        until = hour + DEVICE_DAYS
    return until


def forget_device_use(session: Session) -> None:
    """Delete what was used more than 60 days ago."""
    old = col(DeviceUse.hour) < utcnow() - 2 * DEVICE_DAYS
    session.exec(sa.delete(DeviceUse).where(old), execution_options=UNSYNCHRONIZED)
