"""Table of sweeps: configurations of a training, each trained with the same seeds."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.jobs import STATUS_CHECK
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable, hide_deleted
from app.registry.validation import MAX_NAME


class Stage(StrEnum):
    """HALF: all train to half of their steps. FULL: those that go on. CONFIRM: the first two."""

    HALF = "half"
    FULL = "full"
    CONFIRM = "confirm"


class Sweep(Restorable, Owned, NumberedRow, table=True):
    """A sweep; its runs name it in `sweep_id`, with the place of their configuration."""

    __tablename__ = "sweep"
    __table_args__ = (sa.CheckConstraint(STATUS_CHECK, name="status"), AUTOINCREMENT)

    title: str = Field(max_length=MAX_NAME)
    status: str = Field(default=JobStatus.RUNNING, max_length=16, index=True)
    stage: str = Field(max_length=16)
    plan: dict[str, Any] = Field(
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # no files
        description="A SweepPlan: what is trained and drawn, and what it was expected to cost.",
    )
    result: dict[str, Any] = Field(
        default_factory=dict,
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # no files
        description="A SweepResult: what was measured so far, and what was found.",
    )
    error: str | None = Field(default=None, description="Why it cannot go on, as a sentence.")
    created_at: datetime = Field(default_factory=utcnow)
    finished_at: datetime | None = None

    @property
    def state(self) -> JobStatus:
        """The status as its enum."""
        return JobStatus(self.status)


hide_deleted(Sweep)
