"""Table of the thumbnails of images: which blobs are shown in place of a stored image."""

from __future__ import annotations

from enum import StrEnum

from sqlmodel import Field, SQLModel

from app.registry.db import KEEPS_NO_BLOB


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
    small_sha256: str | None = Field(default=None, max_length=64)
    large_sha256: str | None = Field(default=None, max_length=64)

    def shown(self, size: ThumbnailSize) -> str:
        """The blob to show in this size."""
        chosen = self.small_sha256 if size is ThumbnailSize.SMALL else self.large_sha256
        return chosen or self.sha256
