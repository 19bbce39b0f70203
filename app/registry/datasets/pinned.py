"""Pinned dataset versions: how they are made, which runs need, the deletion of the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters.models import AdapterFile, AdapterVersion
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.datasets.service import list_images
from app.registry.deletion.freeing import Deletion
from app.registry.runs.models import Run

HASHES = ("sha256", "clean_sha256")  # of an item


def pin_version(session: Session, dataset: Dataset) -> DatasetVersion:
    """The immutable version with the current images and captions; equal content shares one row."""
    items: list[dict[str, Any]] = [
        {
            "sha256": image.sha256,
            "clean_sha256": image.clean_sha256,
            "caption": image.caption,
            "width": image.width,
            "height": image.height,
            **({"repeats": image.repeats} if image.repeats != 1 else {}),
            **({"never_flip": True} if image.never_flip else {}),
        }
        for image in list_images(session, dataset.key)
    ]
    content = json.dumps(items, sort_keys=True, ensure_ascii=False).encode()
    fingerprint = hashlib.sha256(content).hexdigest()
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
    elif len(version.items) != version.image_count:
        version.items = items  # they were deleted with the last run that needed them
    session.add(version)
    session.flush()
    return version


def runs_of_versions(session: Session, version_ids: Iterable[int]) -> list[Run]:
    """The runs that were or are trained on these dataset versions, oldest first."""
    keys = list(version_ids)
    pinned = col(Run.dataset_version_id).in_(keys) | col(Run.regularization_version_id).in_(keys)
    return list(session.exec(select(Run).where(pinned).order_by(col(Run.id))))


def prune_versions(session: Session, version_ids: Iterable[int]) -> Deletion:
    """Delete those of these dataset versions that no run needs.

    One that an adapter was trained on keeps its row, which says how many images there were, but not
    the images and captions.
    """
    deletion = Deletion("")
    for key in sorted(set(version_ids)):
        version = session.get(DatasetVersion, key, with_for_update=True)
        if version is None or runs_of_versions(session, [key]):
            continue
        deletion.files |= {item[name] for item in version.items for name in HASHES if name in item}
        deletion.captions |= {caption_hash(str(item.get("caption", ""))) for item in version.items}
        trained = select(AdapterVersion.id).where(AdapterVersion.dataset_version_id == key)
        adapter_versions = list(session.exec(trained))
        if not adapter_versions:
            session.delete(version)
            continue
        version.items = []
        session.add(version)
        # downloads with the tags of captions; without them they are written again on request
        tagged = sa.delete(AdapterFile).where(
            col(AdapterFile.version_id).in_(adapter_versions), col(AdapterFile.with_tags)
        )
        files = session.connection().execute(tagged.returning(col(AdapterFile.sha256)))
        deletion.files.update(files.scalars())
    session.flush()
    return deletion


def caption_hash(caption: str) -> str:
    """The hash by which the cache of encodings names a caption."""
    return hashlib.sha256(caption.encode()).hexdigest()
