"""The captions of images that have several: one of each kind, with its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.datasets.models import CaptionKind, Image, ImageCaption
from app.registry.db import in_chunks

KINDS = tuple(CaptionKind)


@dataclass(frozen=True)
class OneCaption:
    """One of the captions of an image; `used` is the part of the times it is trained with, 0 to 1.

    An empty caption is used only where the image has no other.
    """

    kind: CaptionKind
    caption: str
    share: int
    version: int
    used: float
    is_first: bool


def captions_of_image(session: Session, image: Image) -> list[OneCaption]:
    """All captions of an image, the first one first."""
    rows = [
        (image.caption_kind, image.caption, image.caption_share, image.caption_version),
        *(
            (row.kind, row.caption, row.share, row.version)
            for row in further_captions(session, [image.key]).get(image.key, [])
        ),
    ]
    total = sum(share for _, caption, share, _ in rows if caption)
    return [
        OneCaption(
            CaptionKind(kind),
            caption,
            share,
            version,
            used=(share / total if caption else 0.0) if total else float(place == 0),
            is_first=place == 0,
        )
        for place, (kind, caption, share, version) in enumerate(rows)
    ]


def further_captions(session: Session, image_ids: Iterable[int]) -> dict[int, list[ImageCaption]]:
    """The captions after the first one, by image, in the order of their kinds."""
    found: dict[int, list[ImageCaption]] = {}
    for chunk in in_chunks(image_ids):
        of_images = col(ImageCaption.image_id).in_(chunk)
        for row in session.exec(select(ImageCaption).where(of_images)):
            found.setdefault(row.image_id, []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: KINDS.index(CaptionKind(row.kind)))
    return found


def item_captions(item: Mapping[str, Any]) -> list[str]:
    """All captions of an item of a pinned version, the first one first."""
    several = [str(one["caption"]) for one in item.get("captions", ())]
    return several or [str(item.get("caption", ""))]
