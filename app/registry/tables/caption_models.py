"""The table of the models that caption images on this machine."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import NEVER_TWICE, utcnow
from app.registry.tables.rows import NumberedRow
from worker.core.captioning.local.families import family_label


class CaptionModelStatus(StrEnum):
    """Status of a caption model; only READY ones can be used."""

    DOWNLOADING = "downloading"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"


class CaptionModel(NumberedRow, table=True):
    """A model that captions images on this machine, from the Hub or a folder."""

    __tablename__ = "caption_model"
    __table_args__ = NEVER_TWICE

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=120)
    source: str = Field(unique=True, description="Path of a folder, or hf://owner/name.")
    local_path: str | None = Field(default=None, description="Path of a download from the Hub.")
    revision: str | None = Field(
        default=None, max_length=64, description="The commit of a download from the Hub."
    )
    status: str = Field(default=CaptionModelStatus.CHECKING, max_length=16)
    error: str | None = None
    family: str | None = Field(default=None, max_length=16, description="Such as florence2.")
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def family_label(self) -> str:
        """The common name of its kind; empty while unknown."""
        return family_label(self.family)
