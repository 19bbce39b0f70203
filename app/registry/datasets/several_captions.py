"""The captions of images that have several: one of each kind, with its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import AfterValidator, Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets.captions import clean_caption
from app.registry.db import cached_by_snapshot, in_chunks
from app.registry.tables.datasets import MAX_SHARE, Image, ImageCaption, is_live
from worker.core.words import CaptionKind

KINDS = tuple(CaptionKind)


@dataclass(frozen=True)
class KindCaption:
    """One of the captions of an image, and its weight among them."""

    caption: Annotated[str, AfterValidator(clean_caption)]
    kind: CaptionKind = CaptionKind.LONG
    share: Annotated[int, Field(ge=1, le=MAX_SHARE, strict=True)] = 1


def kind_captions(image: Image, further: Iterable[ImageCaption]) -> list[KindCaption]:
    """The first caption of an image and these others of it."""
    first = KindCaption(image.caption, CaptionKind(image.caption_kind), image.caption_share)
    others = (KindCaption(row.caption, CaptionKind(row.kind), row.share) for row in further)
    return [first, *others]


@api_record
class OneCaption:
    """A caption of an image."""

    kind: CaptionKind = Field(description="`long`, `short` or `tags`.")
    caption: str = Field(description="What it says.")
    share: int = Field(description="How often it is used, relative to the other captions.")
    version: int = Field(description="Counts its changes.")
    used: float = Field(description="The part of the times that training uses it, 0 to 1.")
    is_first: bool = Field(description="True for the one that `caption` of the image names.")


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


@dataclass(frozen=True)
class KindNow:
    """The caption of one kind of an image as it is now; version 0: the image has none."""

    caption: str = ""
    version: int = 0


def captions_of_kinds(session: Session, wanted: Sequence[tuple[Image, str]]) -> list[KindNow]:
    """The caption of this kind of each image."""
    others = [image.key for image, kind in wanted if kind != image.caption_kind]
    further = further_captions(session, others)
    found = []
    for image, kind in wanted:
        rows = {row.kind: KindNow(row.caption, row.version) for row in further.get(image.key, ())}
        first = {image.caption_kind: KindNow(image.caption, image.caption_version)}
        found.append((rows | first).get(kind, KindNow()))
    return found


@cached_by_snapshot
def has_several_captions(session: Session, dataset_id: int) -> bool:
    """True if an image of the dataset has more than one caption."""
    further = select(ImageCaption.id).join(Image, col(Image.id) == col(ImageCaption.image_id))
    query = further.where(Image.dataset_id == dataset_id).limit(1)
    return session.exec(query).first() is not None


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


def read_texts(session: Session, dataset_id: int, *, longer_than: int = 0) -> list[tuple[int, str]]:
    """Image and text of the captions of a dataset that have more characters than this.

    By image, the first caption first.
    """
    live, further = is_live(dataset_id), col(ImageCaption.caption)
    first = select(Image.id, Image.caption, sa.literal(0).label("place")).where(
        live, sa.func.length(col(Image.caption)) > longer_than
    )
    others = (
        select(ImageCaption.image_id, further, ImageCaption.id)
        .join(Image, col(ImageCaption.image_id) == col(Image.id))
        .where(live, sa.func.length(further) > longer_than)
    )
    query: Any = sa.union_all(first, others).order_by("id", "place")
    return [(image_id, caption) for image_id, caption, _ in session.exec(query)]


def pinned_captions(item: Mapping[str, Any]) -> list[KindCaption]:
    """All captions of an item of a pinned version, the first one first."""
    several = item.get("captions") or [{"caption": item.get("caption", "")}]
    return [KindCaption(**one) for one in several]


def item_captions(item: Mapping[str, Any]) -> list[str]:
    """The texts of `pinned_captions`."""
    return [one.caption for one in pinned_captions(item)]
