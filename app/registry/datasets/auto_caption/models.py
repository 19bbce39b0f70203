"""Tables of captions that a model proposed, and of the local models that can."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.datasets.models import SOURCE_NAME_LENGTH, CaptionKind
from app.registry.db import utcnow
from app.registry.rows import NumberedRow
from worker.core.captioning.words import CaptionMode


class ProposalState(StrEnum):
    """What became of one image of an order."""

    PROPOSED = "proposed"
    EMPTY = "empty"  # the provider was not sure enough
    FAILED = "failed"
    SKIPPED = "skipped"  # it had a caption by then
    APPLIED = "applied"
    DISCARDED = "discarded"


class CaptionProposal(NumberedRow, table=True):
    """What a provider said of an image; it changes the caption only when it is applied."""

    __tablename__ = "caption_proposal"
    __table_args__ = (sa.UniqueConstraint("job_id", "image_id"),)

    job_id: int = Field(foreign_key="io_job.id", index=True)
    image_id: int = Field(foreign_key="image.id", index=True)
    kind: str = Field(default=CaptionKind.LONG, max_length=16)
    mode: str = Field(default=CaptionMode.FILL, max_length=16)
    state: str = Field(default=ProposalState.PROPOSED, max_length=16)
    caption: str = Field(default="", sa_type=sa.Text)
    note: str = Field(default="", sa_type=sa.Text, description="Why there is no caption.")
    removed: str = Field(default="", sa_type=sa.Text, description="Words that were taken out.")
    source_name: str = Field(default="", max_length=SOURCE_NAME_LENGTH)
    seen_version: int = Field(default=0, description="The caption version of the image then.")
    created_at: datetime = Field(default_factory=utcnow)


class CaptionModelStatus(StrEnum):
    """Status of a local model; only READY ones can be used."""

    DOWNLOADING = "downloading"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"


class CaptionModel(NumberedRow, table=True):
    """A model that captions images on this machine, from the Hub or a folder."""

    __tablename__ = "caption_model"

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
