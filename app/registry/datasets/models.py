"""Tables of datasets: images with captions, and the immutable versions that runs train on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import MENTIONS, NEVER_TWICE, utcnow
from app.registry.rows import NumberedRow

NAME_LENGTH = 120
TRIGGER_LENGTH = 60


class Dataset(NumberedRow, table=True):
    """A named set of images."""

    __tablename__ = "dataset"
    __table_args__ = NEVER_TWICE

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=NAME_LENGTH)
    trigger_word: str | None = Field(default=None, max_length=TRIGGER_LENGTH)
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = Field(default=None, index=True)


class Image(NumberedRow, table=True):
    """An image of a dataset, identified by the hash of the uploaded file."""

    __tablename__ = "image"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "sha256"), NEVER_TWICE)

    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    sha256: str = Field(
        max_length=64,
        description="SHA-256 of the uploaded file.",
        sa_column_kwargs={"info": {MENTIONS: True}},  # the upload is not stored
    )
    clean_sha256: str = Field(max_length=64, description="Blob of the re-encoded image.")
    thumbnail_sha256: str = Field(max_length=64)
    filename: str = Field(max_length=200)
    width: int
    height: int
    size_bytes: int
    note: str | None = Field(default=None, description="What was changed on upload.")
    caption: str = Field(default="", sa_type=sa.Text)
    caption_version: int = 0
    repeats: int = Field(default=1, description="Times used per epoch.")
    never_flip: bool = Field(default=False, description="Never flipped, even if a run flips.")
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = None


class CaptionRevision(NumberedRow, table=True):
    """A caption after a change."""

    __tablename__ = "caption_revision"
    __table_args__ = (sa.UniqueConstraint("image_id", "version"),)

    image_id: int = Field(foreign_key="image.id", index=True)
    version: int
    caption: str = Field(sa_type=sa.Text)
    created_at: datetime = Field(default_factory=utcnow)


class DatasetVersion(NumberedRow, table=True):
    """The images and captions of a dataset at one time; immutable."""

    __tablename__ = "dataset_version"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "fingerprint"), NEVER_TWICE)

    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    fingerprint: str = Field(max_length=64, description="SHA-256 over hashes and captions.")
    image_count: int
    items: list[dict[str, Any]] = Field(
        sa_type=sa.JSON,
        description="For each image: sha256, clean_sha256, caption, width, height; repeats and "
        "never_flip if they differ from the default.",
    )
    created_at: datetime = Field(default_factory=utcnow)
