"""Tables about stored files: their checks, thumbnails and owner, and hashes of deleted ones."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, utcnow
from app.registry.tables.rows import NumberedRow

ONLY_ROW = 1
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class FileProblem(StrEnum):
    """A problem of a stored file that rows refer to."""

    DAMAGED = "damaged"
    MISSING = "missing"


class BlobCheck(SQLModel, table=True):
    """The last check of a stored file; its `problem` is deleted when the file is stored again.

    Where people have quotas its size is kept here, too, also if it was never checked.
    """

    __tablename__ = "blob_check"

    sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # a check keeps no file
        description="The blob.",
    )
    checked_at: datetime = Field(
        default_factory=utcnow, index=True, description="NEVER: only its size is known."
    )
    problem: str | None = Field(
        default=None, max_length=16, index=True, description="A FileProblem; null: it is sound."
    )
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)


class Registry(SQLModel, table=True):
    """The identity of this registry; copies of its database have the same."""

    __tablename__ = "registry"

    id: int = Field(default=ONLY_ROW, primary_key=True, description="Always the same: one row.")
    uid: str = Field(max_length=32, description="Random, made once.")
    created_at: datetime = Field(default_factory=utcnow)


class ErasedHash(NumberedRow, table=True):
    """The hash of a file or caption that was deleted for good; kept for some weeks.

    Whoever stores a row that refers to such a file checks that the file is there (`guard`), and
    train workers delete what they made of it (`latents`).
    """

    __tablename__ = "erased_hash"
    __table_args__ = AUTOINCREMENT

    sha256: str = Field(
        max_length=64,
        index=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # it keeps nothing
    )
    at: datetime = Field(default_factory=utcnow, index=True)


class ThumbnailSize(StrEnum):
    """The two sizes, with the longest side in pixels."""

    SMALL = "small"
    LARGE = "large"

    @property
    def side(self) -> int:
        """The longest side in pixels; images are never enlarged to it."""
        return {ThumbnailSize.SMALL: 256, ThumbnailSize.LARGE: 512}[self]


class Thumbnail(SQLModel, table=True):
    """The thumbnails of an image in two sizes.

    A hash that is null: the image itself is shown, because no thumbnail is smaller, or because it
    cannot be decoded. No row: no thumbnails were made yet.
    """

    __tablename__ = "thumbnail"

    sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the rows that show the image keep it
        description="Blob of the image.",
    )
    small_sha256: str | None = Field(default=None, max_length=64, index=True)
    large_sha256: str | None = Field(default=None, max_length=64, index=True)

    def shown(self, size: ThumbnailSize) -> str:
        """The blob to show in this size."""
        chosen = self.small_sha256 if size is ThumbnailSize.SMALL else self.large_sha256
        return chosen or self.sha256
