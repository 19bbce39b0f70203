"""Pinned dataset versions: how they are made, which runs need, the deletion of the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs.deletion import Deletion
from app.registry.datasets.service import trained_images
from app.registry.datasets.several_captions import (
    further_captions,
    item_captions,
    kind_captions,
)
from app.registry.datasets.used_datasets import trained_on, uses_versions
from app.registry.tables.adapters import AdapterFile
from app.registry.tables.datasets import Dataset, DatasetVersion, Image, ImageCaption
from app.registry.tables.owned import everything
from app.registry.tables.runs import Run
from worker.core.words import CaptionKind

HASHES = ("sha256", "clean_sha256")  # of an item
LABELS = frozenset({"filename"})
"""Keys of an item that training does not see, so they are not hashed.

A dataset that did not change stays the same version as before there were names in versions, and so
do equal images under other names.
"""


def pin_version(session: Session, dataset: Dataset) -> DatasetVersion:
    """The immutable version with the current images and captions; equal content shares one row.

    Images that are set aside are not in it.
    """
    items = current_items(session, dataset.key)
    fingerprint = fingerprint_of(items)
    version = session.exec(
        select(DatasetVersion).where(
            DatasetVersion.dataset_id == dataset.key, DatasetVersion.fingerprint == fingerprint
        )
    ).first()
    if version is None:
        version = DatasetVersion(
            dataset_id=dataset.key,
            fingerprint=fingerprint,
            image_count=len(items),
            items=items,
        )
    elif not version.is_kept or not _has_labels(version):
        # they were deleted with the last run that needed them, or pinned without file names
        version.items = items
    session.add(version)
    session.flush()
    return version


def fingerprint_of(items: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over what training sees of these items."""
    hashed = [{k: v for k, v in item.items() if k not in LABELS} for item in items]
    content = json.dumps(hashed, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(content).hexdigest()


def _has_labels(version: DatasetVersion) -> bool:
    return all(item.keys() >= LABELS for item in version.items)


def current_items(session: Session, dataset_id: int) -> list[dict[str, Any]]:
    """The items of a version that is pinned now, oldest image first.

    An item has `captions` only if the image has several that are not empty or one that is not long,
    and other options only if they differ from the default: the items of an old dataset are those
    that older versions pinned, but for the name.
    """
    images = trained_images(session, dataset_id)
    further = further_captions(session, [image.key for image in images])
    return [_item(image, further.get(image.key, [])) for image in images]


def _item(image: Image, further: list[ImageCaption]) -> dict[str, Any]:
    item: dict[str, Any] = {
        "sha256": image.sha256,
        "clean_sha256": image.clean_sha256,
        "filename": image.filename,
        "caption": image.caption,
        "width": image.width,
        "height": image.height,
    }
    written = [one for one in kind_captions(image, further) if one.caption]
    if written:
        item["caption"] = written[0].caption
    if len(written) > 1 or any(one.kind != CaptionKind.LONG for one in written):
        item["captions"] = [vars(one) for one in written]
    if image.focus is not None:
        item["focus"] = list(image.focus)
    if image.repeats != 1:
        item["repeats"] = image.repeats
    if image.never_flip:
        item["never_flip"] = True
    return item


def runs_of_versions(session: Session, version_ids: Iterable[int]) -> list[Run]:
    """The runs that were or are trained on these dataset versions, oldest first."""
    keys = list(version_ids)
    with everything(session):
        return list(session.exec(select(Run).where(uses_versions(keys)).order_by(col(Run.id))))


def prune_versions(session: Session, version_ids: Iterable[int]) -> Deletion:
    """Delete those of these dataset versions that no run needs.

    One that an adapter was trained on keeps its row, which says how many images there were, but not
    the images and captions.
    """
    deletion = Deletion("")
    with everything(session):
        for key in sorted(set(version_ids)):
            _prune_version(session, key, deletion)
        session.flush()
    return deletion


def _prune_version(session: Session, key: int, deletion: Deletion) -> None:
    version = session.get(DatasetVersion, key, with_for_update=True)
    if version is None or runs_of_versions(session, [key]):
        return
    deletion.files |= {item[name] for item in version.items for name in HASHES if name in item}
    texts = (text for item in version.items for text in item_captions(item))
    deletion.captions |= {caption_hash(text) for text in texts}
    adapter_versions = [row.key for row in trained_on(session, [key])]
    if not adapter_versions:
        session.delete(version)
        return
    version.items = []
    session.add(version)
    # downloads with the tags of captions; without them they are written again on request
    tagged = sa.delete(AdapterFile).where(
        col(AdapterFile.version_id).in_(adapter_versions), col(AdapterFile.with_tags)
    )
    files = session.connection().execute(tagged.returning(col(AdapterFile.sha256)))
    deletion.files.update(files.scalars())


def caption_hash(caption: str) -> str:
    """The hash by which the cache of encodings names a caption."""
    return hashlib.sha256(caption.encode()).hexdigest()
