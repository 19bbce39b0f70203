"""Datasets: pictures with captions, and the immutable versions that runs were trained on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.db import utcnow

NAME_LENGTH = 120
TRIGGER_LENGTH = 60


class Dataset(SQLModel, table=True):
    """A named set of pictures."""

    __tablename__ = "dataset"

    id: int | None = Field(default=None, primary_key=True)
    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=NAME_LENGTH)
    trigger_word: str | None = Field(default=None, max_length=TRIGGER_LENGTH)
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = Field(default=None, index=True)

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id


class Image(SQLModel, table=True):
    """A picture of a dataset, known by the hash of the file that was uploaded."""

    __tablename__ = "image"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "sha256"),)

    id: int | None = Field(default=None, primary_key=True)
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    sha256: str = Field(max_length=64, description="Of the uploaded file: its identity.")
    clean_sha256: str = Field(max_length=64, description="Blob of the re-encoded picture.")
    thumbnail_sha256: str = Field(max_length=64)
    filename: str = Field(max_length=200)
    width: int
    height: int
    size_bytes: int
    note: str | None = Field(default=None, description="What was changed on the way in.")
    caption: str = Field(default="", sa_type=sa.Text)
    caption_version: int = 0
    repeats: int = Field(default=1, description="How often a round shows it.")
    never_flip: bool = Field(default=False, description="Not mirrored, whatever a run says.")
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = None

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id


class CaptionRevision(SQLModel, table=True):
    """What a caption was after each change."""

    __tablename__ = "caption_revision"
    __table_args__ = (sa.UniqueConstraint("image_id", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    image_id: int = Field(foreign_key="image.id", index=True)
    version: int
    caption: str = Field(sa_type=sa.Text)
    created_at: datetime = Field(default_factory=utcnow)


class DatasetVersion(SQLModel, table=True):
    """The pictures and captions of a dataset at one moment; never changed."""

    __tablename__ = "dataset_version"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "fingerprint"),)

    id: int | None = Field(default=None, primary_key=True)
    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    fingerprint: str = Field(max_length=64, description="SHA-256 over hashes and captions.")
    image_count: int
    items: list[dict[str, Any]] = Field(
        sa_type=sa.JSON,
        description="Of each picture: sha256, clean_sha256, caption, width, height; repeats and "
        "never_flip where they are not the usual.",
    )
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id
