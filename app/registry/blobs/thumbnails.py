"""Thumbnails in the database: find, save, list the missing, delete the unused."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs import findings
from app.registry.db import in_chunks, upsert
from app.registry.tables.adapters import Adapter
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Image
from app.registry.tables.renders import RenderImage, RenderSource
from app.registry.tables.runs import Sample

SHOWN_SMALL = (
    RenderImage.sha256,
    RenderSource.sha256,
    Sample.sha256,
    Adapter.cover_sha256,
    Adapter.imported_cover_sha256,
    Image.thumbnail_sha256,  # at most 512 pixels: it is its own large thumbnail
)
"""The columns with images that pages show as thumbnails."""


def find(session: Session, sha256: str) -> Thumbnail | None:
    """The thumbnails of an image; None if none were made yet."""
    return session.get(Thumbnail, sha256)


def save(session: Session, made: Iterable[Thumbnail]) -> None:
    """Store thumbnails whose blobs were just stored; replaces earlier ones of the same images."""
    for thumbnail in made:
        hashes = thumbnail.model_dump(exclude={"sha256"})
        findings.forget_problems(session, *hashes.values())
        upsert(session, Thumbnail, [thumbnail.model_dump()], hashes)


def list_missing(session: Session, *, limit: int) -> list[str]:
    """Up to `limit` images that are shown small and have no thumbnails yet."""
    found: list[str] = []
    for column in SHOWN_SMALL:
        if len(found) < limit:
            query = select(col(column)).where(_is_missing(column)).distinct()
            found += filter(None, session.exec(query.limit(limit - len(found))))
    return list(dict.fromkeys(found))


def count_missing(session: Session) -> int:
    """Number of images without thumbnails; one that is shown in two ways may count twice."""
    return sum(
        session.exec(
            select(sa.func.count(sa.distinct(col(column)))).where(_is_missing(column))
        ).one()
        for column in SHOWN_SMALL
    )


def is_shown(image: Any) -> sa.ColumnElement[bool]:
    """Condition on the hash of an image: a row still shows it."""
    return sa.or_(
        *(image.in_(select(col(column)).where(col(column).is_not(None))) for column in SHOWN_SMALL)
    )


IS_IN_USE = is_shown(col(Thumbnail.sha256))
"""Condition on thumbnails: a row still shows their image."""


def delete_unusable(session: Session, files: Collection[str]) -> None:
    """Delete the thumbnails whose files are damaged or missing, so that they are made again."""
    for part in in_chunks(files):
        named = (
            col(column).in_(part) for column in (Thumbnail.small_sha256, Thumbnail.large_sha256)
        )
        session.connection().execute(sa.delete(Thumbnail).where(sa.or_(*named)))


def delete_unused(session: Session) -> None:
    """Delete the thumbnails of images that no row shows; the sweep deletes their blobs."""
    session.flush()
    session.connection().execute(sa.delete(Thumbnail).where(~IS_IN_USE))


def delete_of(session: Session, images: Iterable[str]) -> set[str]:
    """Delete the thumbnails of those images that no row shows; return the hashes of their files."""
    files: set[str] = set()
    for sha256 in images:
        unused = sa.delete(Thumbnail).where(col(Thumbnail.sha256) == sha256, ~IS_IN_USE)
        made = unused.returning(col(Thumbnail.small_sha256), col(Thumbnail.large_sha256))
        for pair in session.connection().execute(made):
            files.update(filter(None, pair))
    return files


def _is_missing(column: Any) -> sa.ColumnElement[bool]:
    """Condition on a column: it has an image without thumbnails."""
    made = sa.exists().where(col(Thumbnail.sha256) == col(column))
    return sa.and_(col(column).is_not(None), ~made)
