"""Jobs as workers claim them, for tests that have no worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlmodel import Session

from app.registry.db import Database
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.tables.jobs import IoJob, Job

LEASE_SECONDS = 60.0

JobT = TypeVar("JobT", bound=Job)


def claim(session: Session, table: type[JobT]) -> tuple[JobT, Claim]:
    """Claim the next job of this table; there has to be one."""
    claimed = jobs.claim_next(session, table, lease_seconds=LEASE_SECONDS)
    assert claimed is not None
    return claimed


def end_io_job(
    database: Database, is_meant: Callable[[IoJob], bool], status: JobStatus, **values: Any
) -> IoJob:
    """End the first io job that is meant, with these columns; those before it succeed."""
    with database.write() as session:
        job, owned = claim(session, IoJob)
        while not is_meant(job):
            jobs.finish(session, IoJob, owned, JobStatus.SUCCEEDED)
            job, owned = claim(session, IoJob)
        jobs.finish(session, IoJob, owned, status, **values)
        return job
