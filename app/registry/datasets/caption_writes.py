"""Writes captions: the text of an image, its version, and the revision that says who wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.db import in_chunks, utcnow
from app.registry.tables.datasets import SOURCE_NAME_LENGTH, CaptionRevision, CaptionSource, Image


@dataclass(frozen=True)
class CaptionOrigin:
    """The writer of a caption: `name` is the file or the provider, `edit_id` the bulk edit, if any.

    `is_continued`: the same person is still typing, so the text takes the place of what they wrote
    a moment ago.
    """

    source: CaptionSource
    name: str | None = None
    edit_id: int | None = None
    is_continued: bool = False


BY_HAND = CaptionOrigin(CaptionSource.HAND)
STILL_TYPING = CaptionOrigin(CaptionSource.HAND, is_continued=True)


@dataclass(frozen=True)
class CaptionPlace:
    """A caption of an image, and its version before it is changed."""

    image_id: int
    kind: str
    version: int


def from_file(filename: str | None) -> CaptionOrigin:
    """The origin of a caption that came with an upload; None: its file is not known."""
    return CaptionOrigin(CaptionSource.IMPORT, filename)


def write_caption(session: Session, image: Image, caption: str, origin: CaptionOrigin) -> None:
    """Change the first caption of an image and add its revision; nothing is flushed."""
    place = CaptionPlace(image.key, image.caption_kind, image.caption_version)
    image.caption = caption
    image.caption_version = add_revision(session, place, caption, origin)
    session.add(image)


def add_revision(session: Session, place: CaptionPlace, caption: str, origin: CaptionOrigin) -> int:
    """Add to the history what a caption says from now on; return its new version."""
    if origin.is_continued and (typed := _typed_before(session, place)):
        typed.version, typed.caption, typed.created_at = place.version + 1, caption, utcnow()
        session.add(typed)
        return typed.version
    session.add(
        CaptionRevision(
            image_id=place.image_id,
            kind=place.kind,
            version=place.version + 1,
            caption=caption,
            source=origin.source,
            source_name=origin.name[:SOURCE_NAME_LENGTH] if origin.name else None,
            edit_id=origin.edit_id,
        )
    )
    return place.version + 1


def last_versions(session: Session, image_ids: Iterable[int]) -> dict[tuple[int, str], int]:
    """The last version of each caption that these images ever had, by image and kind."""
    newest = func.max(col(CaptionRevision.version))
    image_id, kind = col(CaptionRevision.image_id), col(CaptionRevision.kind)
    found: dict[tuple[int, str], int] = {}
    for chunk in in_chunks(image_ids):
        query = select(image_id, kind, newest).where(image_id.in_(chunk)).group_by(image_id, kind)
        found |= {(key, of): version for key, of, version in session.exec(query)}
    return found


def last_version(session: Session, image: Image, kind: str) -> int:
    """The last version that a caption of this kind of an image ever had; 0 if there was none."""
    return last_versions(session, [image.key]).get((image.key, kind), 0)


def _typed_before(session: Session, place: CaptionPlace) -> CaptionRevision | None:
    """The revision of a caption's version, if it was written by hand."""
    query = select(CaptionRevision).where(
        CaptionRevision.image_id == place.image_id,
        CaptionRevision.kind == place.kind,
        CaptionRevision.version == place.version,
        CaptionRevision.source == CaptionSource.HAND,
    )
    return session.exec(query).first()
