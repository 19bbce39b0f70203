"""What every job row has: state, order, lease, wishes; and the append-only list of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col

from app.db import utcnow
from app.jobs.states import JobStatus

STATUS_CHECK = "status IN ({})".format(", ".join(f"'{status}'" for status in JobStatus))
DEFAULT_MAX_ATTEMPTS = 3
DOWNLOAD_BASE = "download_base"  # io jobs of this kind can take hours


class Job(SQLModel):
    """Columns of runs, renders and io jobs: the row is the job, messages only wake workers."""

    queue: ClassVar[str]

    id: int | None = Field(default=None, primary_key=True)
    status: str = Field(default=JobStatus.QUEUED, max_length=16, index=True)
    priority: int = Field(default=0, description="Lower goes first.")
    created_at: datetime = Field(default_factory=utcnow)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    owner_token: str | None = Field(default=None, max_length=64)
    lease_until: datetime | None = None
    cancel_requested: bool = False
    error_code: str | None = Field(default=None, max_length=40)
    error: str | None = Field(default=None, description="One sentence for people.")
    error_trace: str | None = None

    @classmethod
    def claimable(cls) -> sa.ColumnElement[bool]:
        """What must hold of a waiting row so that a worker may take it, beside its turn."""
        return sa.true()

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id

    @property
    def state(self) -> JobStatus:
        """The status as its enum."""
        return JobStatus(self.status)


class Event(SQLModel, table=True):
    """Something that happened to a row; never changed, never deleted."""

    __tablename__ = "event"
    __table_args__ = (sa.Index("ix_event_subject", "subject", "subject_id"),)

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=utcnow)
    subject: str = Field(max_length=40)
    subject_id: int
    kind: str = Field(max_length=40)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)


class IoJob(Job, table=True):
    """Work for the io worker: exports, imports, looking at a new base model."""

    __tablename__ = "io_job"
    __table_args__ = (
        sa.CheckConstraint(STATUS_CHECK, name="status"),
        sa.Index("ix_io_job_kind_subject_id", "kind", "subject_id"),
    )
    queue: ClassVar[str] = "io"

    kind: str = Field(max_length=40, index=True)
    subject_id: int | None = None
    args: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    result: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)

    @classmethod
    def claimable(cls) -> sa.ColumnElement[bool]:
        """Downloads go one after the other, so that other work always finds a free thread."""
        other = aliased(cls)
        at_work = sa.exists().where(
            col(other.status) == JobStatus.RUNNING, col(other.kind) == DOWNLOAD_BASE
        )
        return sa.or_(col(cls.kind) != DOWNLOAD_BASE, sa.not_(at_work))
