"""A copy of a dataset: other rows, the same files."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.datasets import service
from app.registry.datasets.caption_writes import CaptionOrigin
from app.registry.datasets.edits.copying import copy_images
from app.registry.tables.datasets import NAME_LENGTH, SOURCE_NAME_LENGTH, CaptionSource, Dataset
from app.registry.wording import shortened

SUFFIX = " (copy)"


def duplicate_dataset(session: Session, dataset_id: int, *, name: str | None = None) -> Dataset:
    """A new dataset with the images, captions and settings of another one. Raises NotFound.

    `name`: without it, that of the other one with “(copy)”. The files are shared, not copied;
    deleted images and the histories of captions stay behind.
    """
    old = service.get_dataset(session, dataset_id)
    new = service.create_dataset(
        session,
        name or f"{shortened(old.name, NAME_LENGTH - len(SUFFIX))}{SUFFIX}",
        trigger_word=old.trigger_word,
    )
    images = [image.key for image in service.list_images(session, dataset_id)]
    origin = CaptionOrigin(CaptionSource.IMPORT, f"“{old.name}”"[:SOURCE_NAME_LENGTH])
    copy_images(session, new.key, images, origin)
    return new
