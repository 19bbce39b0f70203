"""Tables about stored files: checks, thumbnails, looks and owner, and hashes of deleted ones."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, PlainJSON, utcnow
from app.registry.tables.rows import NumberedRow
from app.registry.wording import plural

ONLY_ROW = 1
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
LOOK_VERSION = 1  # of what `worker.core.likeness` measures; older looks are measured again


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
    checked_at: datetime = Field(default_factory=utcnow, index=True)
    """NEVER: only its size is known."""
    problem: str | None = Field(default=None, max_length=16, index=True)
    """A FileProblem; null: it is sound."""
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


class Basis(StrEnum):
    """The images that a look was measured in."""

    PROMPTS = "prompts"
    COVER = "cover"
    IMAGES = "images"
    IMAGE = "image"


class ImageLook(SQLModel, table=True):
    """The look of a stored image, as `worker.core.likeness` measures and packs it."""

    __tablename__ = "image_look"

    sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the rows that show the image keep it
        description="Blob of the image.",
    )
    look_version: int = Field(description="Version of the code that measured.")
    look: bytes | None = Field(default=None, sa_type=sa.LargeBinary)
    """Null: the image cannot be read."""


class AdapterLook(SQLModel, table=True):
    """The look of an adapter at its version in use: the mean of that of its `images`.

    It is measured again once `version_id` or `cover_sha256` differ from those of the adapter.
    """

    __tablename__ = "adapter_look"

    adapter_id: int = Field(foreign_key="adapter.id", primary_key=True)
    look_version: int = Field(description="Version of the code that measured.")
    version_id: int | None = None
    """What `latest` named then, without a key: it may be gone."""
    cover_sha256: str | None = Field(
        default=None,
        max_length=64,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the adapter keeps it
        description="The cover of the adapter then.",
    )
    basis: str = Field(default=Basis.COVER, max_length=8, description="A Basis.")
    images: list[list[str]] = Field(
        sa_type=PlainJSON,  # samples, renders and covers keep them
        description="Subject and hash of each image.",
    )
    look: bytes | None = Field(default=None, sa_type=sa.LargeBinary)
    """Null: it has no image."""

    @property
    def hashes(self) -> list[str]:
        """The hashes of its images."""
        return [sha256 for _, sha256 in self.images]

    @property
    def measured_in(self) -> str:
        """Its images in words."""
        images = plural(len(self.images), "image")
        return {
            Basis.PROMPTS: f"{images} of shared prompts",
            Basis.COVER: "its cover alone",
            Basis.IMAGES: f"{images} of the dataset",
            Basis.IMAGE: "this image",
        }[Basis(self.basis)]
