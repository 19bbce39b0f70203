"""The captions of images that have several: one of each kind, with its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel import Session, col, select

from app.registry.datasets.models import CaptionKind, ImageCaption
from app.registry.db import in_chunks

KINDS = tuple(CaptionKind)


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
