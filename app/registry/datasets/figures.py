"""Numbers of images in datasets, also of those with captions; and all datasets to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.tables.datasets import Dataset, Image, ImageCaption, is_live


@dataclass(frozen=True)
class DatasetFigures:
    """Numbers of images; `trained_count`: without those set aside. `smallest_side` is in pixels."""

    image_count: int = 0
    captioned_count: int = 0
    trained_count: int = 0
    smallest_side: int | None = None


def count_figures(session: Session, dataset_ids: Sequence[int]) -> dict[int, DatasetFigures]:
    """The figures of each of these datasets, in one query."""
    further = (
        select(ImageCaption.image_id)
        .join(Image, col(Image.id) == col(ImageCaption.image_id))
        .where(col(Image.dataset_id).in_(dataset_ids), ImageCaption.caption != "")
    )
    has_caption = (col(Image.caption) != "") | col(Image.id).in_(further)
    # least() is called min() on SQLite
    is_tall = col(Image.width) < col(Image.height)
    side = sa.case((is_tall, col(Image.width)), else_=col(Image.height))
    numbers: list[Any] = [
        func.count(),
        func.sum(sa.case((has_caption, 1), else_=0)),
        func.sum(sa.case((col(Image.set_aside), 0), else_=1)),
        func.min(side),
    ]
    live = col(Image.dataset_id).in_(dataset_ids) & col(Image.deleted_at).is_(None)
    query = select(Image.dataset_id, *numbers).where(live).group_by(col(Image.dataset_id))
    figures = dict.fromkeys(dataset_ids, DatasetFigures())
    return figures | {key: DatasetFigures(*values) for key, *values in session.exec(query)}


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset in a list to choose from."""

    id: int
    slug: str
    name: str
    image_count: int


def dataset_choices(session: Session) -> list[DatasetChoice]:
    """All datasets for a list to choose from, newest first."""
    query = (
        select(Dataset.id, Dataset.slug, Dataset.name, func.count(col(Image.id)))
        .outerjoin(Image, is_live(col(Dataset.id)))
        .where(col(Dataset.deleted_at).is_(None))
        .group_by(col(Dataset.id))
        .order_by(col(Dataset.created_at).desc(), col(Dataset.id).desc())
    )
    return [DatasetChoice(*row) for row in session.exec(query)]
