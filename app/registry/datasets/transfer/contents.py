"""The contents of an export: a dataset as it is now, or one of its pinned versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, select

from app.registry.datasets import service
from app.registry.datasets.sent_files.image_facts import ImageFacts
from app.registry.datasets.several_captions import (
    further_captions,
    kind_captions,
    pinned_captions,
)
from app.registry.datasets.transfer.versions import get_version
from app.registry.db import utcnow
from app.registry.errors import Conflict
from app.registry.tables.datasets import Dataset, DatasetVersion, Image


@dataclass(frozen=True, kw_only=True)
class ExportedImage(ImageFacts):
    """An image with everything that was written about it; the first caption is the main one."""

    filename: str
    clean_sha256: str
    width: int
    height: int
    time: datetime


@dataclass(frozen=True)
class Contents:
    """A dataset to export; `version`: the number of the pinned version, None: as it is now."""

    slug: str
    name: str
    trigger_word: str | None
    images: list[ExportedImage]
    time: datetime
    version: int | None = None

    @property
    def filename(self) -> str:
        """The name of its archive."""
        return f"{self.slug}.zip" if self.version is None else f"{self.slug}-{self.version}.zip"


def dataset_contents(session: Session, dataset_id: int) -> Contents:
    """The dataset as it is now, also the images that are set aside. Raises NotFound.

    `session` must be a snapshot, so that images and captions are of one moment.
    """
    dataset = service.get_dataset(session, dataset_id)
    images = service.list_images(session, dataset_id)
    further = further_captions(session, [image.key for image in images])
    exported = [
        ExportedImage(
            filename=image.filename,
            sha256=image.sha256,
            clean_sha256=image.clean_sha256,
            width=image.width,
            height=image.height,
            captions=tuple(
                kind_captions(image, (row for row in further.get(image.key, ()) if row.caption))
            ),
            time=image.created_at,
            repeats=image.repeats,
            never_flip=image.never_flip,
            set_aside=image.set_aside,
            focus=image.focus,
        )
        for image in images
    ]
    return Contents(dataset.slug, dataset.name, dataset.trigger_word, exported, utcnow())


def version_contents(session: Session, version_id: int) -> Contents:
    """A pinned version. Raises NotFound, and Conflict if its images were deleted for good."""
    version = get_version(session, version_id)
    if not version.is_kept:
        raise Conflict(
            "The images of this version were deleted for good, with the last run that used them."
        )
    dataset = session.get_one(Dataset, version.dataset_id)
    images = list(_pinned_images(session, version))
    return Contents(
        dataset.slug, dataset.name, dataset.trigger_word, images, version.created_at, version.key
    )


def _pinned_images(session: Session, version: DatasetVersion) -> Iterator[ExportedImage]:
    rows = select(Image.sha256, Image.filename).where(Image.dataset_id == version.dataset_id)
    names = dict(session.exec(rows).all())
    for item in version.items:
        # versions that were pinned before names were part of them
        filename = item.get("filename") or names.get(item["sha256"]) or item["sha256"][:16]
        focus = item.get("focus")
        yield ExportedImage(
            filename=filename,
            sha256=item["sha256"],
            clean_sha256=item["clean_sha256"],
            width=item["width"],
            height=item["height"],
            captions=tuple(pinned_captions(item)),
            time=version.created_at,
            repeats=item.get("repeats", 1),
            never_flip=item.get("never_flip", False),
            set_aside=False,
            focus=(focus[0], focus[1]) if focus else None,
        )
