"""Orders the job for what older images lack: thumbnails, and measures of those in datasets."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs.thumbnails import list_missing
from app.registry.datasets.measures import service as measures
from app.registry.db import Database, database_now
from app.registry.job_kinds.kinds import JobKind, MakeThumbnailsArgs
from app.registry.job_kinds.states import ACTIVE, JobStatus
from app.registry.jobs.service import enqueue_io_if
from app.registry.tables.jobs import IoJob

RETRY_INTERVAL = timedelta(hours=24)  # after a job that failed
BACKFILL_PRIORITY = 200  # after all other jobs, even sweeps
BACKFILL_LOCK = 0x62727468  # key of PostgreSQL's advisory lock for ordering the job


def is_due(session: Session) -> bool:
    """True if an image lacks thumbnails or measures, and no job is at it or has just failed."""
    failed = sa.and_(
        col(IoJob.status) == JobStatus.FAILED,
        col(IoJob.finished_at) >= database_now(session) - RETRY_INTERVAL,
    )
    active = col(IoJob.status).in_(ACTIVE)
    recent = select(IoJob.id).where(IoJob.kind == JobKind.MAKE_THUMBNAILS, failed | active)
    if session.exec(recent.limit(1)).first() is not None:
        return False
    return bool(list_missing(session, limit=1) or measures.list_unmeasured(session, limit=1))


def order_if_due(database: Database) -> IoJob | None:
    """Create the job if it is due; of concurrent callers, only one creates it."""
    return enqueue_io_if(
        is_due, database, MakeThumbnailsArgs(), priority=BACKFILL_PRIORITY, lock=BACKFILL_LOCK
    )
