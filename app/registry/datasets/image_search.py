"""The images of a dataset that match a filter, in its order, and how many each filter has."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.datasets.filters import ALL_IMAGES, ImageFilter, Show, Sort
from app.registry.datasets.image_conditions import (
    IN_SQL,
    Scope,
    condition_of,
    conditions_of,
    scope_of,
)
from app.registry.datasets.measures.service import MEASURED
from app.registry.datasets.models import Dataset, Image, ImageMeasure

PIXELS = col(Image.width) * col(Image.height)
OLDEST = col(Image.id)
_ORDERS: dict[Sort, tuple[Any, ...]] = {
    Sort.OLDEST: (OLDEST,),
    Sort.NEWEST: (OLDEST.desc(),),
    Sort.NAME: (sa.func.lower(col(Image.filename)), OLDEST),
    Sort.LARGEST: (PIXELS.desc(), OLDEST),
    Sort.SMALLEST: (PIXELS, OLDEST),
    Sort.SHARPEST: (col(ImageMeasure.sharpness).desc().nulls_last(), OLDEST),
    Sort.BLURRIEST: (col(ImageMeasure.sharpness).nulls_last(), OLDEST),
    Sort.SIMILAR: (OLDEST,),
}


def matching_ids(session: Session, dataset: Dataset, wanted: ImageFilter = ALL_IMAGES) -> list[int]:
    """The ids of all images that match the filter, in its order; a few milliseconds for 5,000."""
    scope = scope_of(session, dataset)
    query = _from_images(col(Image.id)).where(*conditions_of(wanted, scope))
    rows = session.connection().execute(query.order_by(*_ORDERS[wanted.sort]))
    return list(rows.scalars())


def count_filters(
    session: Session, dataset: Dataset, *, trained_only: bool = False
) -> dict[Show, int]:
    """How many images of a dataset have each property; `trained_only`: not those set aside."""
    scope = scope_of(session, dataset)
    kinds = sorted(IN_SQL)
    query = _from_images(*(_count(kind, scope) for kind in kinds)).where(scope.live)
    if trained_only:
        query = query.where(col(Image.set_aside).is_(False))
    row = session.connection().execute(query).one()
    return {kind: int(count or 0) for kind, count in zip(kinds, row, strict=True)}


def _from_images(*columns: Any) -> sa.Select[Any]:
    """A query of images with their measures, if they have any."""
    images, measures = sa.inspect(Image).local_table, sa.inspect(ImageMeasure).local_table
    return sa.select(*columns).select_from(images.outerjoin(measures, MEASURED))


def _count(kind: Show, scope: Scope) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition_of(kind, scope), 1), else_=0))
