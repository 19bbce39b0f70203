"""Reads what is checked of a dataset: its images that are trained on, and their captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs import findings
from app.registry.datasets.listing import image_search
from app.registry.datasets.measures import MEASURED
from app.registry.db import in_chunks
from app.registry.tables.blobs import BlobCheck
from app.registry.tables.datasets import (
    Dataset,
    Image,
    ImageCaption,
    ImageMeasure,
    is_trained,
    point,
)

COLUMNS = ("id", "filename", "clean_sha256", "thumbnail_sha256", "width", "height")
MEASURES = ("sharpness", "has_transparency", "ground")
FILE_HAS_PROBLEM: sa.ColumnElement[bool] = col(Image.clean_sha256).in_(
    sa.select(col(BlobCheck.sha256)).where(col(BlobCheck.problem).is_not(None))
)


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that a run would train on, with its captions that are not empty."""

    id: int
    filename: str
    clean_sha256: str
    thumbnail_sha256: str
    width: int
    height: int
    captions: tuple[str, ...]
    is_unusable: bool
    is_measured: bool
    sharpness: float | None = None
    perceptual_hash: int | None = None
    has_transparency: bool | None = None
    ground: str | None = None
    focus: tuple[float, float] | None = None


def read_images(session: Session, dataset: Dataset) -> list[CheckedImage]:
    """The images that are not set aside, oldest first; captions without a share do not count."""
    return _read(session, is_trained(dataset.key))


def read_some(
    session: Session, dataset: Dataset, image_ids: Iterable[int]
) -> dict[int, CheckedImage]:
    """Those of these images that are not set aside, by id."""
    found: dict[int, CheckedImage] = {}
    for chunk in in_chunks(image_ids):
        some = is_trained(dataset.key) & col(Image.id).in_(chunk)
        found |= {image.id: image for image in _read(session, some)}
    return found


def _read(session: Session, wanted: sa.ColumnElement[bool]) -> list[CheckedImage]:
    others: dict[int, list[str]] = defaultdict(list)
    further = select(ImageCaption.image_id, ImageCaption.caption).where(
        col(ImageCaption.image_id).in_(sa.select(col(Image.id)).where(wanted)),
        col(ImageCaption.share) > 0,
        col(ImageCaption.caption) != "",
    )
    for image_id, caption in session.exec(further.order_by(col(ImageCaption.id))):
        others[image_id].append(caption)
    columns: list[Any] = [
        *(getattr(Image, name) for name in COLUMNS),
        sa.case((col(Image.caption_share) > 0, col(Image.caption)), else_="").label("caption"),
        FILE_HAS_PROBLEM.label("is_unusable"),
        col(ImageMeasure.measure_version).is_not(None).label("is_measured"),
        *(getattr(ImageMeasure, name) for name in (*MEASURES, "perceptual_hash")),
        *(Image.focus_x, Image.focus_y),
    ]
    query = select(*columns).select_from(Image).outerjoin(ImageMeasure, MEASURED).where(wanted)
    rows = session.exec(query.order_by(col(Image.id)))
    return [_image(row, others.get(row[0], ())) for row in rows]


def _image(row: Sequence[Any], others: Sequence[str]) -> CheckedImage:
    """The image of a row, unpacked by place: by name it takes five times as long."""
    key, filename, clean, thumbnail, width, height, caption, is_unusable, is_measured, *rest = row
    sharpness, has_transparency, ground, digits, *focus = rest
    return CheckedImage(
        key,
        filename,
        clean,
        thumbnail,
        width,
        height,
        captions=tuple(text for text in (caption, *others) if text),
        is_unusable=bool(is_unusable),
        is_measured=bool(is_measured),
        sharpness=sharpness,
        perceptual_hash=_number(digits),
        has_transparency=has_transparency,
        ground=ground,
        focus=point(*focus),
    )


def _number(text: str | None) -> int | None:
    """A hash as a number; None for one that is not hexadecimal."""
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


def read_state(session: Session, dataset: Dataset) -> tuple[object, ...]:
    """Equal values for as long as nothing that is checked has changed."""
    key, further = col(ImageCaption.id), col(ImageCaption.image_id) == col(Image.id)
    of_images = image_search.read_state(session, dataset)
    captions = select(
        sa.func.sum(key),
        sa.func.sum(col(ImageCaption.version)),
        sa.func.sum(sa.cast(key, sa.BigInteger) * col(ImageCaption.share)),
    )
    captions = captions.select_from(ImageCaption).join(Image, further)
    of_captions = session.exec(captions.where(is_trained(dataset.key))).one()
    problems = tuple(sorted(findings.problems(session)))
    return (dataset.trigger_word, of_images, *of_captions, problems)
