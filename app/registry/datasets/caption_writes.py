"""Writes captions: the text of an image, its version, and the revision that says who wrote it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.datasets.models import (
    SOURCE_NAME_LENGTH,
    CaptionRevision,
    CaptionSource,
    Image,
)


@dataclass(frozen=True)
class CaptionOrigin:
    """Who writes a caption: `name` is the file or the provider, `edit_id` the bulk edit, if any."""

    source: CaptionSource
    name: str | None = None
    edit_id: int | None = None


BY_HAND = CaptionOrigin(CaptionSource.HAND)


def from_file(filename: str | None) -> CaptionOrigin:
    """The origin of a caption that came with an upload; None: its file is not known."""
    return CaptionOrigin(CaptionSource.IMPORT, filename)


def write_caption(session: Session, image: Image, caption: str, origin: CaptionOrigin) -> None:
    """Change the first caption of an image and add its revision; nothing is flushed."""
    image.caption = caption
    image.caption_version += 1
    session.add(image)
    session.add(
        CaptionRevision(
            image_id=image.key,
            kind=image.caption_kind,
            version=image.caption_version,
            caption=caption,
            source=origin.source,
            source_name=origin.name[:SOURCE_NAME_LENGTH] if origin.name else None,
            edit_id=origin.edit_id,
        )
    )
