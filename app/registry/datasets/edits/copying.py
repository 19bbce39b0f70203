"""Copies images with their captions into another dataset, or a whole dataset into a new one.

The files are shared, not copied. A move is a copy and a deletion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlmodel import Session, col, select

from app.registry.datasets import service
from app.registry.datasets.caption_writes import (
    CaptionOrigin,
    CaptionPlace,
    add_revision,
    last_versions,
    write_caption,
)
from app.registry.datasets.service import get_dataset
from app.registry.tables.datasets import (
    NAME_LENGTH,
    SOURCE_NAME_LENGTH,
    CaptionSource,
    Dataset,
    Image,
    ImageCaption,
)
from app.registry.wording import shortened

AT_ONCE = 100  # images in one flush, which looks whether their files are there
NOT_COPIED = {"id", "dataset_id", "created_at", "deleted_at", "caption", "caption_version"}
SUFFIX = " (copy)"


def copy_images(
    session: Session, target_id: int, image_ids: Iterable[int], origin: CaptionOrigin
) -> dict[int, Image]:
    """Copy these images; return each copy by the id of its original. No file is copied.

    An image that was deleted from the other dataset is restored there, and keeps its caption if
    it has one. Histories of captions stay with the originals.
    """
    target = get_dataset(session, target_id, lock=True)
    copies: dict[int, Image] = {}
    ordered = sorted(image_ids)
    for start in range(0, len(ordered), AT_ONCE):
        chunk = ordered[start : start + AT_ONCE]
        originals = session.exec(
            select(Image).where(col(Image.id).in_(chunk)).order_by(col(Image.id))
        ).all()
        restored = _restore(session, target, originals)
        pairs = [(image, restored.get(image.sha256) or _copy(image, target)) for image in originals]
        session.add_all([copy for _, copy in pairs])
        session.flush()
        for image, copy in pairs:
            if image.caption and not copy.caption:
                write_caption(session, copy, image.caption, origin)
        _copy_others(session, {image.key: copy for image, copy in pairs}, origin)
        session.flush()
        copies |= {image.key: copy for image, copy in pairs}
    return copies


def _copy(image: Image, target: Dataset) -> Image:
    return Image(dataset_id=target.key, **image.model_dump(exclude=NOT_COPIED))


def _restore(session: Session, target: Dataset, images: Sequence[Image]) -> dict[str, Image]:
    """The same images where they were deleted from the target, no longer deleted."""
    hashes = [image.sha256 for image in images]
    query = select(Image).where(Image.dataset_id == target.key, col(Image.sha256).in_(hashes))
    found = session.exec(query).all()
    for image in found:
        image.deleted_at = None
    return {image.sha256: image for image in found}


def _copy_others(session: Session, copies: dict[int, Image], origin: CaptionOrigin) -> None:
    """Copy the further captions of images whose copies have none."""
    keys = [copy.key for copy in copies.values()]
    kept = select(ImageCaption.image_id).where(col(ImageCaption.image_id).in_(keys))
    has = set(session.exec(kept))
    last = last_versions(session, keys)  # a copy that came back may have had this kind
    originals = select(ImageCaption).where(col(ImageCaption.image_id).in_(copies))
    for row in session.exec(originals.order_by(col(ImageCaption.id))).all():
        copy = copies[row.image_id]
        if copy.key in has or row.kind == copy.caption_kind:
            continue
        place = CaptionPlace(copy.key, row.kind, last.get((copy.key, row.kind), 0))
        version = add_revision(session, place, row.caption, origin)
        values = row.model_dump(exclude={"id", "image_id", "version"})
        session.add(ImageCaption(image_id=copy.key, version=version, **values))


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
