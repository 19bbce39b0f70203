"""Tables of looks: measured styles of images, and of adapters by the images that show them."""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.db import KEEPS_NO_BLOB
from app.registry.wording import plural

LOOK_VERSION = 1  # of what `worker.core.likeness` measures; older looks are measured again


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
    look: bytes | None = Field(
        default=None, sa_type=sa.LargeBinary, description="Null: the image cannot be read."
    )


class AdapterLook(SQLModel, table=True):
    """The look of an adapter at its version in use: the mean of that of its `images`.

    It is measured again once `version_id` or `cover_sha256` differ from those of the adapter.
    """

    __tablename__ = "adapter_look"

    adapter_id: int = Field(foreign_key="adapter.id", primary_key=True)
    look_version: int = Field(description="Version of the code that measured.")
    version_id: int | None = Field(
        default=None, description="What `latest` named then, without a key: it may be gone."
    )
    cover_sha256: str | None = Field(
        default=None,
        max_length=64,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the adapter keeps it
        description="The cover of the adapter then.",
    )
    basis: str = Field(default=Basis.COVER, max_length=8, description="A Basis.")
    images: list[list[str]] = Field(
        sa_type=sa.JSON,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # samples, renders and covers keep them
        description="Subject and hash of each image.",
    )
    look: bytes | None = Field(
        default=None, sa_type=sa.LargeBinary, description="Null: it has no image."
    )

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
