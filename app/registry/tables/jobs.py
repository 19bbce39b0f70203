"""Columns of every job row (status, order, lease, cancel flag); tables of events and workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, SQLModel, col

from app.registry.actor import (
    MAX_CHARACTERS,
    current_actor,
    current_address,
    current_user_id,
)
from app.registry.db import AUTOINCREMENT, PlainJSON, advisory_lock, utcnow
from app.registry.job_kinds.job_types import LONG_KINDS, TRAIN_KINDS, read_arguments, read_result
from app.registry.job_kinds.kinds import (
    DRAWN_KINDS,
    AdvanceSweepArgs,
    DamagedJob,
    JobArgs,
    JobKind,
    JobResult,
)
from app.registry.job_kinds.states import NOT_FINAL, JobStatus, Queue
from app.registry.tables.owned import Owned
from app.registry.tables.people import has_device_time
from app.registry.tables.rows import NumberedRow

STATUS_CHECK = "status IN ({})".format(", ".join(f"'{status}'" for status in JobStatus))
DEFAULT_MAX_ATTEMPTS = 3
JOB_FILES_KEPT = timedelta(days=7)  # files referred to only by an ended io job
IO_THREADS = 3  # per io worker: a base model download, another long job, and short jobs
MAX_LONG_JOBS = IO_THREADS - 1
ArgsT = TypeVar("ArgsT", bound=JobArgs)
ResultT = TypeVar("ResultT", bound=JobResult)
_CELLS = sa.table("grid_cell", sa.column("grid_id"), sa.column("render_id"))
_RENDERS = sa.table("render", sa.column("id"), sa.column("status"))
_RUNS = sa.table("run", sa.column("status"), sa.column("owner_id"))
AFTER_RUNS = 60  # priority of what nobody waits for; it also waits until no run is active
CLAIM_LOCK = 0x62727573


class Job(Owned, NumberedRow):
    """Columns of runs, renders and io jobs. The row is the job; messages only wake workers."""

    queue: ClassVar[str]
    of_a_status: ClassVar[Sequence[str]] = ("waits_for",)  # columns emptied when it changes

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
    waits_for: str | None = None
    """What an active job waits for, as a sentence; None: nothing."""
    error_code: str | None = Field(default=None, max_length=40)
    error: str | None = Field(default=None, description="One sentence for users.")
    error_trace: str | None = None

    @classmethod
    def queue_order(cls) -> tuple[Any, ...]:
        """The columns that order queued rows as they are claimed, the first one next."""
        return (col(cls.priority), col(cls.created_at), col(cls.id))

    @classmethod
    def claimable(cls, session: Session, queue: str) -> sa.ColumnElement[bool]:
        """An additional condition on queued rows that a worker of this queue may claim."""
        return sa.true()

    @classmethod
    def follow_up(cls, session: Session, job_id: int) -> tuple[JobArgs, int] | None:
        """The io job to queue when a job no longer waits or runs, and the id of its subject."""
        return None

    @classmethod
    def lets_runs_go_first(cls, session: Session) -> sa.ColumnElement[bool]:
        """False for what nobody waits for while a run trains or waits, but not for device time."""
        can_start = has_device_time(session, _RUNS.c.owner_id)
        waits = (_RUNS.c.status == JobStatus.QUEUED) & can_start
        active = sa.exists().where((_RUNS.c.status == JobStatus.RUNNING) | waits)
        return sa.or_(col(cls.priority) < AFTER_RUNS, sa.not_(active))

    @classmethod
    def lock_claims(cls, session: Session) -> None:
        """Serialize claims until this transaction ends, if `claimable` counts rows."""

    @property
    def state(self) -> JobStatus:
        """The status as its enum."""
        return JobStatus(self.status)


class Event(NumberedRow, table=True):
    """Something that happened to a row; never deleted, as the store's marker names the newest."""

    __tablename__ = "event"
    __table_args__ = (sa.Index("ix_event_subject", "subject", "subject_id"),)

    at: datetime = Field(default_factory=utcnow)
    subject: str = Field(max_length=40)
    subject_id: int
    kind: str = Field(max_length=40)
    data: dict[str, Any] = Field(
        default_factory=dict,
        sa_type=PlainJSON,  # texts and numbers
    )
    actor: str | None = Field(default_factory=current_actor, max_length=MAX_CHARACTERS)
    """Who caused it."""
    user_id: int | None = Field(default_factory=current_user_id, index=True)
    """Of a person with an account."""
    address: str | None = Field(default_factory=current_address, max_length=64)
    """Theirs, for some months."""


class IoJob(Job, table=True):
    """A job of the io worker, such as an export, an import or the inspection of a base model."""

    __tablename__ = "io_job"
    __table_args__ = (
        sa.CheckConstraint(STATUS_CHECK, name="status"),
        sa.Index("ix_io_job_kind_subject_id", "kind", "subject_id"),
        AUTOINCREMENT,
    )
    queue: ClassVar[Queue] = Queue.IO

    kind: str = Field(max_length=40, index=True)
    subject_id: int | None = None
    args: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    result: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)

    def arguments(self, model: type[ArgsT]) -> ArgsT:
        """The arguments, of the model of this job's kind or a base of it. Raises DamagedJob."""
        found = read_arguments(self.kind, self.args)
        assert isinstance(found, model), f"A job of the kind {self.kind} has no {model.__name__}."
        return found

    def outcome(self, model: type[ResultT]) -> ResultT:
        """The results or the progress, like `arguments`. Raises DamagedJob."""
        found = read_result(self.kind, self.result)
        assert isinstance(found, model), f"A job of the kind {self.kind} has no {model.__name__}."
        return found

    def readable_arguments(self) -> JobArgs | None:
        """The arguments; None if they are damaged or the kind is unknown."""
        try:
            return self.arguments(JobArgs)
        except DamagedJob:
            return None

    @classmethod
    def claimable(cls, session: Session, queue: str) -> sa.ColumnElement[bool]:
        """Long jobs leave one thread to short jobs; base models are downloaded one at a time.

        What measures images waits until all of them are drawn, or will not be; if nobody waits for
        it, also for runs. Workers that train claim their kinds alone, and no others do.
        """
        if queue == Queue.TRAIN:
            return sa.and_(col(cls.kind).in_(TRAIN_KINDS), cls.lets_runs_go_first(session))
        other = aliased(cls)
        running = col(other.status) == JobStatus.RUNNING
        at_work = sa.exists().where(running, col(other.kind) == JobKind.DOWNLOAD_BASE)
        long_ones = sa.select(sa.func.count()).where(running, col(other.kind).in_(LONG_KINDS))
        undrawn = sa.exists().where(
            _CELLS.c.grid_id == col(cls.args)["grid_id"].as_integer(),
            _RENDERS.c.id == _CELLS.c.render_id,
            _RENDERS.c.status.in_(NOT_FINAL),
        )
        return sa.and_(
            col(cls.kind).not_in(TRAIN_KINDS),
            sa.or_(col(cls.kind) != JobKind.DOWNLOAD_BASE, sa.not_(at_work)),
            sa.or_(
                col(cls.kind).not_in(DRAWN_KINDS),
                sa.and_(sa.not_(undrawn), cls.lets_runs_go_first(session)),
            ),
            sa.or_(
                col(cls.kind).not_in(LONG_KINDS),
                long_ones.select_from(other).scalar_subquery() < MAX_LONG_JOBS,
            ),
        )

    @classmethod
    def follow_up(cls, session: Session, job_id: int) -> tuple[JobArgs, int] | None:
        """A look at the sweep whose images were measured, or could not be."""
        job = session.get_one(cls, job_id, populate_existing=True)
        if job.kind != JobKind.ADVANCE_SWEEP or not job.args.get("grid_id") or not job.subject_id:
            return None
        return AdvanceSweepArgs(), job.subject_id

    @classmethod
    def lock_claims(cls, session: Session) -> None:
        """Lock, because concurrent claims could exceed the limits."""
        advisory_lock(session, CLAIM_LOCK)


class WorkerPresence(SQLModel, table=True):
    """A worker process of one queue and the time it was last seen."""

    __tablename__ = "worker"

    id: str = Field(max_length=32, primary_key=True)
    queue: str = Field(max_length=16, index=True)
    host: str = Field(max_length=255)
    pid: int
    device: str = Field(default="", max_length=80, description="Description; empty while unknown.")
    problem: str = Field(default="", description="One sentence about the device; empty if none.")
    remedy: str = Field(default="", description="The command that solves the problem.")
    machine: str = Field(default="", max_length=40)
    """What its precision depends on; empty: unknown."""
    memory_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    """Of the GPU it trains on; else null."""
    started_at: datetime = Field(default_factory=utcnow)
    seen_at: datetime = Field(default_factory=utcnow)
