"""Looks of stored images in the database: find, save, list the missing, delete the unused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs.thumbnails import is_shown
from app.registry.db import in_chunks, upsert
from app.registry.tables.blobs import LOOK_VERSION, AdapterLook, ImageLook
from app.registry.tables.datasets import Dataset, Image

MEASURED = col(ImageLook.look_version) >= LOOK_VERSION
UNUSED = ~is_shown(col(ImageLook.sha256))


def find(session: Session, images: Iterable[str]) -> dict[str, bytes | None]:
    """The packed looks of these images, as far as they were measured; None: it cannot be read."""
    found: dict[str, bytes | None] = {}
    for chunk in in_chunks(set(images)):
        query = select(ImageLook).where(col(ImageLook.sha256).in_(chunk), MEASURED)
        found |= {row.sha256: row.look for row in session.exec(query)}
    return found


def save(session: Session, looks: Mapping[str, bytes | None]) -> None:
    """Store looks by the hash of the image; replaces earlier ones."""
    for sha256, look in looks.items():
        values = {"look_version": LOOK_VERSION, "look": look}
        upsert(session, ImageLook, [{"sha256": sha256, **values}], values)


def missing_in_datasets(session: Session, *, limit: int) -> list[str]:
    """Up to `limit` images of datasets that were not measured yet, by the hash of the thumbnail."""
    measured = sa.exists().where(col(ImageLook.sha256) == col(Image.thumbnail_sha256), MEASURED)
    kept = col(Image.deleted_at).is_(None) & col(Dataset.deleted_at).is_(None)
    query = sa.select(col(Image.thumbnail_sha256)).join(
        Dataset, col(Dataset.id) == col(Image.dataset_id)
    )
    found = query.where(kept, ~measured).distinct().limit(limit)
    return list(session.connection().execute(found).scalars())


def delete_of(session: Session, images: Collection[str]) -> None:
    """Delete the looks of those images that no row shows, and of the adapters measured in them."""
    gone: set[str] = set()
    for chunk in in_chunks(images):
        unused = sa.delete(ImageLook).where(col(ImageLook.sha256).in_(chunk), UNUSED)
        gone |= set(session.connection().execute(unused.returning(col(ImageLook.sha256))).scalars())
    if gone:
        columns = col(AdapterLook.adapter_id), col(AdapterLook.images)
        rows = session.connection().execute(sa.select(*columns)).all()
        of_gone = [key for key, shown in rows if not gone.isdisjoint(hash_ for _, hash_ in shown)]
        forget_adapters(session, of_gone)


def delete_unused(session: Session) -> None:
    """Delete the looks of images that no row shows."""
    session.connection().execute(sa.delete(ImageLook).where(UNUSED))


def forget_adapters(session: Session, adapter_ids: Iterable[int]) -> None:
    """Delete the looks of these adapters, so that they are measured again."""
    for chunk in in_chunks(adapter_ids):
        named = col(AdapterLook.adapter_id).in_(chunk)
        session.connection().execute(sa.delete(AdapterLook).where(named))
