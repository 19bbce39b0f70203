"""Runs that ended a short time ago, for whoever wants to be told."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import Session, col, select

from app.registry.db import database_now
from app.registry.tables.runs import Run

ENDED_SECONDS = 600
ENDED_SHOWN = 5


def ended_runs(session: Session) -> list[Run]:
    """The newest runs that ended in the last ten minutes, the latest end first."""
    since = database_now(session) - timedelta(seconds=ENDED_SECONDS)
    ended = select(Run).where(col(Run.finished_at) > since)
    return list(session.exec(ended.order_by(col(Run.finished_at).desc()).limit(ENDED_SHOWN)).all())
