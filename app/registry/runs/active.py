"""The running and queued runs, without reading a long queue."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.jobs.states import JobStatus
from app.registry.runs.models import Run

ACTIVE_SHOWN = 5


@dataclass(frozen=True)
class ActiveRuns:
    """The first active runs, running ones before queued ones, and how many there are of each."""

    shown: list[Run]
    running: int
    queued: int

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
    order = (col(Run.status).desc(), col(Run.priority), col(Run.id))
    shown = session.exec(select(Run).where(active).order_by(*order).limit(limit)).all()
    counts = dict(
        session.exec(select(Run.status, func.count()).where(active).group_by(col(Run.status))).all()
    )
    return ActiveRuns(list(shown), counts.get("running", 0), counts.get("queued", 0))
