"""Table of the checks of stored files: when each was read last, and what was wrong with it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel

from app.registry.db import KEEPS_NO_BLOB, utcnow


class FileProblem(StrEnum):
    """A problem of a stored file that rows refer to."""

    DAMAGED = "damaged"
    MISSING = "missing"


class BlobCheck(SQLModel, table=True):
    """The last check of a stored file; its `problem` is deleted when the file is stored again."""

    __tablename__ = "blob_check"

    sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # a check keeps no file
        description="The blob.",
    )
    checked_at: datetime = Field(default_factory=utcnow, index=True)
    problem: str | None = Field(
        default=None, max_length=16, index=True, description="A FileProblem; null: it is sound."
    )
