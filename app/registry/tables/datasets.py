"""Tables of datasets: images with captions, their changes, and the versions that runs train on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel, col

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, PlainJSON, utcnow
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable
from worker.core.captioning.words import CaptionMode
from worker.core.words import CaptionKind, Labeled

NAME_LENGTH = 120
TRIGGER_LENGTH = 60
MAX_REPEATS = 100
MAX_SHARE = 100
SOURCE_NAME_LENGTH = 200


class CaptionSource(Labeled):
    """The origin of a caption."""

    HAND = "hand", "by hand"
    IMPORT = "import", "imported"
    PROVIDER = "provider", "by a model"
    BULK = "bulk", "bulk edit"
    RESTORE = "restore", "restored"
    UNDO = "undo"


class Dataset(Restorable, Owned, NumberedRow, table=True):
    """A named set of images."""

    __tablename__ = "dataset"
    __table_args__ = AUTOINCREMENT

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=NAME_LENGTH)
    trigger_word: str | None = Field(default=None, max_length=TRIGGER_LENGTH)
    created_at: datetime = Field(default_factory=utcnow)
    deleted_at: datetime | None = Field(default=None, index=True)


class Image(Restorable, NumberedRow, table=True):
    """An image of a dataset, identified by the hash of the uploaded file."""

    __tablename__ = "image"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "sha256"),
        # all that the state of a dataset is read from: a page need not go through all its rows
        sa.Index(
            "ix_image_state",
            "dataset_id",
            "deleted_at",
            "id",
            "set_aside",
            "caption_version",
            "caption_share",
            "clean_sha256",
        ),
        AUTOINCREMENT,
    )

    dataset_id: int = Field(foreign_key="dataset.id")
    sha256: str = Field(
        max_length=64,
        description="SHA-256 of the uploaded file.",
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the upload is not stored
    )
    clean_sha256: str = Field(max_length=64, index=True)
    """Blob of the re-encoded image."""
    thumbnail_sha256: str = Field(max_length=64, index=True)
    filename: str = Field(max_length=200)
    width: int
    height: int
    size_bytes: int
    note: str | None = Field(default=None, description="What was changed on upload.")
    caption: str = Field(default="", sa_type=sa.Text)
    caption_version: int = 0
    caption_kind: str = Field(default=CaptionKind.LONG, max_length=16)
    caption_share: int = 1
    """Weight of this caption; `ImageCaption` has those of the others."""
    repeats: int = Field(default=1, description="Times used per epoch.")
    never_flip: bool = Field(default=False, description="Never flipped, even if a run flips.")
    set_aside: bool = Field(default=False, description="Kept in the dataset, not trained on.")
    focus_x: float | None = None
    """The point that crops keep, 0 (left) to 1; None: the center."""
    focus_y: float | None = Field(default=None, description="The same, 0 (top) to 1.")
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def focus(self) -> tuple[float, float] | None:
        """The point (x, y) that crops keep, each 0 to 1; None: the center."""
        return point(self.focus_x, self.focus_y)


def is_live(dataset_id: Any) -> sa.ColumnElement[bool]:
    """Condition: an image of this dataset that is not deleted."""
    return sa.and_(col(Image.dataset_id) == dataset_id, col(Image.deleted_at).is_(None))


def is_trained(dataset_id: int) -> sa.ColumnElement[bool]:
    """Condition: an image of this dataset that a run would train on."""
    return is_live(dataset_id) & col(Image.set_aside).is_(False)


def point(x: float | None, y: float | None) -> tuple[float, float] | None:
    """The point of two coordinates, if there are both."""
    return None if x is None or y is None else (x, y)


class ImageCaption(NumberedRow, table=True):
    """A further caption of an image; the first one is a column of the image."""

    __tablename__ = "image_caption"
    __table_args__ = (sa.UniqueConstraint("image_id", "kind"), AUTOINCREMENT)

    image_id: int = Field(foreign_key="image.id", index=True)
    kind: str = Field(max_length=16)
    caption: str = Field(default="", sa_type=sa.Text)
    share: int = Field(default=1, description="Weight among the captions of the image.")
    version: int = 0


class CaptionRevision(NumberedRow, table=True):
    """A caption after a change, with who made it; counted for each kind of caption."""

    __tablename__ = "caption_revision"
    __table_args__ = (sa.UniqueConstraint("image_id", "kind", "version"),)

    image_id: int = Field(foreign_key="image.id", index=True)
    kind: str = Field(default=CaptionKind.LONG, max_length=16)
    version: int
    caption: str = Field(sa_type=sa.Text)
    source: str | None = Field(default=None, max_length=16)
    """A CaptionSource; None: written before 0039."""
    source_name: str | None = Field(default=None, max_length=SOURCE_NAME_LENGTH)
    """The file or provider, if any."""
    edit_id: int | None = Field(default=None, foreign_key="dataset_edit.id", index=True)
    removed_share: int | None = None
    """The share that the caption had when it was removed after this."""
    created_at: datetime = Field(default_factory=utcnow)


class DatasetEdit(NumberedRow, table=True):
    """A change of many images, which can be undone as one."""

    __tablename__ = "dataset_edit"
    __table_args__ = AUTOINCREMENT

    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    action: str = Field(max_length=40)
    settings: dict[str, Any] = Field(sa_type=PlainJSON)
    changed: int = Field(description="Number of changed images.")
    before: list[dict[str, Any]] = Field(sa_type=PlainJSON)
    """For each image: its id, and the fields before and after."""
    created_at: datetime = Field(default_factory=utcnow)
    undone_at: datetime | None = None


class ImageMeasure(SQLModel, table=True):
    """Measurements of the pixels of a clean image."""

    __tablename__ = "image_measure"
    __table_args__ = (sa.Index("ix_image_measure_state", "clean_sha256", "measure_version"),)

    clean_sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # a measure keeps no file
    )
    measure_version: int = Field(description="Version of the code that measured.")
    sharpness: float | None = Field(default=None, description="Greater is sharper.")
    perceptual_hash: str | None = Field(default=None, max_length=64, description="Hexadecimal.")
    has_transparency: bool | None = None
    ground: str | None = Field(default=None, max_length=7)
    """Color of a plain ground as #rrggbb, if it has one."""
    ground_share: float | None = Field(default=None, description="Share of that ground, 0 to 1.")


class DatasetVersion(NumberedRow, table=True):
    """The images and captions of a dataset at one time; immutable."""

    __tablename__ = "dataset_version"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "fingerprint"), AUTOINCREMENT)

    dataset_id: int = Field(foreign_key="dataset.id", index=True)
    fingerprint: str = Field(max_length=64, description="SHA-256 over hashes and captions.")
    image_count: int
    items: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    """For each image: sha256, clean_sha256, caption, width, height; filename since 0039; captions
    (kind, caption, share of each) if there are several; focus, repeats and never_flip if they
    differ from the default."""
    created_at: datetime = Field(default_factory=utcnow)
    outlives_images: bool = Field(default=False, sa_column_kwargs={"server_default": sa.true()})
    """Images of it may have been deleted for good."""

    @property
    def is_kept(self) -> bool:
        """False if its images and captions were deleted for good, with the last run on it."""
        return len(self.items) == self.image_count


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
