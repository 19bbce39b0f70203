"""Orders the job that checks the stored files: a slice now and then, each local file in 30 days."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import Session, col, select

from app.registry.db import Database, database_now
from app.registry.job_kinds.kinds import CheckFilesArgs, CheckFilesResult, DamagedJob, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue_io_if
from app.registry.tables.jobs import IoJob

READ_INTERVAL = timedelta(days=30)  # between two readings of a local file
CHECK_INTERVAL = timedelta(hours=24)  # between two looks for missing files, and after a failure
SLICE_SECONDS = 300.0  # of reading in one job; what is left is read by the next one
CHECK_PRIORITY = 210  # after all other jobs
CHECK_LOCK = 0x62727663  # key of PostgreSQL's advisory lock for ordering the job


def is_due(session: Session) -> bool:
    """True if no check is queued or running, and the last one left files or is a day old."""
    checks = select(IoJob).where(IoJob.kind == JobKind.CHECK_FILES)
    last = session.exec(checks.order_by(col(IoJob.id).desc()).limit(1)).first()
    if last is None:
        return True
    if not last.state.is_final or last.finished_at is None:
        return False
    if last.state is JobStatus.SUCCEEDED and _files_left(last):
        return True
    return last.finished_at < database_now(session) - CHECK_INTERVAL


def _files_left(job: IoJob) -> int:
    try:
        return job.outcome(CheckFilesResult).left or 0
    except DamagedJob:
        return 0


def order_if_due(database: Database) -> IoJob | None:
    """Create the job if it is due; of concurrent callers, only one creates it."""
    return enqueue_io_if(
        is_due, database, CheckFilesArgs(), priority=CHECK_PRIORITY, lock=CHECK_LOCK
    )
