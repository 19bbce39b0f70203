"""Runs that are running or queued, with their places in the queue, and those that just ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.db import database_now
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything, principal_of
from app.registry.tables.people import has_device_time
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run

ACTIVE_SHOWN = 5
ENDED_SHOWN = 5
ENDED_SECONDS = 600


@dataclass(frozen=True)
class ActiveRuns:
    """The first active runs, running ones before queued ones, and how many there are of each.

    `private`: running ones that the person of the session does not see.
    """

    shown: list[Run]
    running: int
    queued: int
    private: int = 0

    @property
    def total(self) -> int:
        """Number of active runs."""
        return self.running + self.queued

    @property
    def hidden(self) -> int:
        """Number of active runs that are not shown."""
        return self.total - len(self.shown)


def active_runs(session: Session, *, limit: int = ACTIVE_SHOWN) -> ActiveRuns:
    """The first running runs, then queued runs in their order."""
    active = col(Run.status).in_((JobStatus.RUNNING, JobStatus.QUEUED))
    order = (col(Run.status).desc(), *Run.queue_order())
    shown = session.exec(select(Run).where(active).order_by(*order).limit(limit)).all()
    counts = dict(
        session.exec(select(Run.status, func.count()).where(active).group_by(col(Run.status))).all()
    )
    seen, private = counts.get("running", 0), 0
    if principal_of(session) is not None:
        with everything(session):
            running = select(func.count()).where(col(Run.status) == JobStatus.RUNNING)
            private = session.exec(running).one() - seen
    return ActiveRuns(list(shown), seen, counts.get("queued", 0), private)


def is_any_active(session: Session) -> bool:
    """True if a run is running, or queued and could start."""
    can_start = (col(Run.status) == JobStatus.QUEUED) & has_device_time(session, Run.owner_id)
    active = (col(Run.status) == JobStatus.RUNNING) | can_start
    return session.exec(select(Run.id).where(active).limit(1)).first() is not None


def is_machine_busy(session: Session) -> bool:
    """True while a worker trains, generates, or carries out another job."""
    with everything(session):
        return any(
            session.exec(select(job.id).where(job.status == JobStatus.RUNNING).limit(1)).first()
            for job in (Run, Render, IoJob)
        )


def queue_places(session: Session, run_ids: Sequence[int]) -> dict[int, int]:
    """The place of each of these runs that waits for others, from 1 for the one that is next."""
    place = func.row_number().over(order_by=Run.queue_order())
    queue = (
        sa.select(col(Run.id).label("id"), place.label("place"))
        .where(col(Run.status) == JobStatus.QUEUED, has_device_time(session, Run.owner_id))
        .subquery()
    )
    query = sa.select(queue.c.id, queue.c.place).where(queue.c.id.in_(run_ids))
    return {row.id: row.place for row in session.connection().execute(query)}


def runs_ahead(session: Session, run: Run) -> int:
    """Number of running runs and of those before this one in the queue; 0 if it is not queued."""
    if run.status != JobStatus.QUEUED:
        return 0
    place = queue_places(session, [run.key]).get(run.key)
    if place is None:  # a worker has claimed it since the row was read
        return 0
    running = select(func.count()).where(col(Run.status) == JobStatus.RUNNING)
    with everything(session):
        return session.exec(running).one() + place - 1


def ended_runs(session: Session) -> list[Run]:
    """The newest runs that ended in the last ten minutes, the latest end first."""
    since = database_now(session) - timedelta(seconds=ENDED_SECONDS)
    ended = select(Run).where(col(Run.finished_at) > since)
    return list(session.exec(ended.order_by(col(Run.finished_at).desc()).limit(ENDED_SHOWN)).all())
