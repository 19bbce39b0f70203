"""Orders the job for what older images lack: thumbnails, and measures of those in datasets."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import Session

from app.registry.blobs.thumbnails import list_missing
from app.registry.datasets.measures import service as measures
from app.registry.job_kinds.kinds import JobKind, MakeThumbnailsArgs
from app.registry.jobs.service import orders_if_due, was_ordered

RETRY_INTERVAL = timedelta(hours=24)  # after a job that failed
BACKFILL_PRIORITY = 200  # after all other jobs, even sweeps


def is_due(session: Session) -> bool:
    """True if an image lacks thumbnails or measures, and no job is at it or has just failed."""
    if was_ordered(session, JobKind.MAKE_THUMBNAILS, retry_after=RETRY_INTERVAL):
        return False
    return bool(list_missing(session, limit=1) or measures.list_unmeasured(session, limit=1))


order_if_due = orders_if_due(is_due, MakeThumbnailsArgs(), priority=BACKFILL_PRIORITY)
