"""The table of captions that a model proposed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import utcnow
from app.registry.tables.datasets import SOURCE_NAME_LENGTH
from app.registry.tables.rows import NumberedRow
from worker.core.captioning.words import CaptionMode
from worker.core.words import CaptionKind


class ProposalState(StrEnum):
    """The outcome for one image of an order."""

    PROPOSED = "proposed"
    EMPTY = "empty"  # the provider was not sure enough
    FAILED = "failed"
    SKIPPED = "skipped"  # it had a caption by then
    APPLIED = "applied"
    DISCARDED = "discarded"


class CaptionProposal(NumberedRow, table=True):
    """A provider's caption for an image; it changes the image's only when it is applied."""

    __tablename__ = "caption_proposal"
    __table_args__ = (sa.UniqueConstraint("job_id", "image_id"),)

    job_id: int = Field(foreign_key="io_job.id", index=True)
    image_id: int = Field(foreign_key="image.id", index=True)
    kind: str = Field(default=CaptionKind.LONG, max_length=16)
    mode: str = Field(default=CaptionMode.FILL, max_length=16)
    state: str = Field(default=ProposalState.PROPOSED, max_length=16)
    caption: str = Field(default="", sa_type=sa.Text)
    note: str = Field(default="", sa_type=sa.Text, description="Why there is no caption.")
    guess: str = Field(default="", sa_type=sa.Text, description="What it was too unsure to name.")
    confidence: float | None = Field(default=None, description="Of the guess, 0 to 1.")
    removed: str = Field(default="", sa_type=sa.Text, description="Words that were taken out.")
    source_name: str = Field(default="", max_length=SOURCE_NAME_LENGTH)
    seen_version: int = Field(default=0, description="The caption version of the image then.")
    created_at: datetime = Field(default_factory=utcnow)
