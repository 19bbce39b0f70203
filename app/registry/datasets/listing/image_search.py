"""The images of a dataset that match a filter, in its order, and how many each filter has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.figures import DatasetFigures, count_figures
from app.registry.datasets.filters import ALL_IMAGES, ImageFilter, Show, Sort
from app.registry.datasets.image_conditions import (
    IN_SQL,
    Scope,
    condition_of,
    conditions_of,
    scope_of,
)
from app.registry.datasets.listing import index
from app.registry.datasets.listing.kept import KeptResults
from app.registry.datasets.measures import MEASURED
from app.registry.datasets.training_side import tokens_of
from app.registry.db import cached_by_snapshot
from app.registry.tables.datasets import Dataset, Image, ImageMeasure, is_live

FEW = 500  # images, for which nothing is put off

PIXELS = col(Image.width) * col(Image.height)
OLDEST = col(Image.id)
_ORDERS: dict[Sort, tuple[Any, ...]] = {
    Sort.OLDEST: (OLDEST,),
    Sort.NEWEST: (OLDEST.desc(),),
    Sort.LARGEST: (PIXELS.desc(), OLDEST),
    Sort.SMALLEST: (PIXELS, OLDEST),
    Sort.SHARPEST: (col(ImageMeasure.sharpness).desc().nulls_last(), OLDEST),
    Sort.BLURRIEST: (col(ImageMeasure.sharpness).nulls_last(), OLDEST),
}
_KEPT_ORDERS = {Sort.NAME: index.by_name, Sort.SIMILAR: index.by_likeness}
_KEPT_FILTERS = {
    Show.NEAR_DUPLICATE: index.near_duplicates,
    Show.LONG: index.long_captions,
    Show.SAME_CAPTION: index.same_captions,
}


def matching_ids(session: Session, dataset: Dataset, wanted: ImageFilter = ALL_IMAGES) -> list[int]:
    """The ids of all images that match the filter, in its order."""
    scope = scope_of(session, dataset)
    query = _from_images(col(Image.id)).where(*conditions_of(wanted, scope))
    order = _ORDERS.get(wanted.sort, (OLDEST,))
    ids = list(session.exec(query.order_by(*order)))
    kept = [found for kind, found in _KEPT_FILTERS.items() if kind in wanted.show]
    if not kept and wanted.sort in _ORDERS:
        return ids
    state = read_state(session, dataset)
    for found in kept:
        matching = found.find(session, dataset.key, state.of(found))
        ids = [key for key in ids if key in matching]
    if wanted.sort in _KEPT_ORDERS:
        ordered = _KEPT_ORDERS[wanted.sort]
        ids = _in_order(ids, ordered.find(session, dataset.key, state.of(ordered)))
    return ids


def count_filters(
    session: Session, dataset: Dataset, *, now: bool = True
) -> tuple[dict[Show, int], int]:
    """The number of images of a dataset with each property, and the number of all.

    Unless `now`, what takes long for many images is left out if it is not known yet.
    """
    state = read_state(session, dataset)
    now = now or state.count <= FEW
    in_sql = (state.images, state.captions, scope_of(session, dataset))
    find_counts = _counts.find if now else _counts.known
    counts = dict(find_counts(session, dataset.key, in_sql) or {})
    for kind, kept in _KEPT_FILTERS.items():
        find = kept.find if now else kept.known
        found = find(session, dataset.key, state.of(kept))
        if found is not None:
            counts[kind] = len(found)
    return counts, state.count


def counted_before(session: Session, dataset: Dataset) -> set[Show]:
    """The properties that images had when they were last counted, maybe before a change."""
    counts = dict(_counts.last(session, dataset.key) or {})
    counts |= {
        kind: len(kept.last(session, dataset.key) or ()) for kind, kept in _KEPT_FILTERS.items()
    }
    return {kind for kind, count in counts.items() if count}


def read_state(session: Session, dataset: Dataset) -> index.State:
    """The state that cached results about a dataset depend on, in one query."""
    return _read_state(session, dataset.key, dataset.created_at, dataset.trigger_word)


@cached_by_snapshot
def _read_state(
    session: Session, dataset_id: int, created_at: datetime, trigger_word: str | None
) -> index.State:
    query = _from_images(*index.state_columns(dataset_id)).where(is_live(dataset_id))
    row = session.exec(query).one()
    base = tokens_of(session, dataset_id).base
    return index.read_state(row, created_at, base, trigger_word)


def kept_figures(session: Session, dataset: Dataset) -> DatasetFigures:
    """The figures of a dataset, counted again only after it was changed."""
    state = read_state(session, dataset)
    return _figures.find(session, dataset.key, (state.images, state.captions))


def _count_figures(session: Session, dataset_id: int) -> DatasetFigures:
    return count_figures(session, [dataset_id])[dataset_id]


def _count_in_sql(session: Session, dataset_id: int) -> dict[Show, int]:
    """The number of images with each property that SQL can check."""
    scope = scope_of(session, session.get_one(Dataset, dataset_id))
    kinds = sorted(IN_SQL)
    columns = [_count(kind, scope) for kind in kinds]
    row = session.exec(_from_images(*columns).where(scope.live)).one()
    return {kind: int(count or 0) for kind, count in zip(kinds, row, strict=True)}


def _in_order(ids: Sequence[int], order: Sequence[int]) -> list[int]:
    """The ids in this order; those that it lacks come last."""
    wanted, ordered = set(ids), set(order)
    return [key for key in order if key in wanted] + [key for key in ids if key not in ordered]


def _from_images(*columns: Any) -> Any:
    """A query of images with their measures, if they have any."""
    return select(*columns).select_from(Image).outerjoin(ImageMeasure, MEASURED)


def _count(kind: Show, scope: Scope) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition_of(kind, scope), 1), else_=0))


_counts = KeptResults(_count_in_sql)
_figures = KeptResults(_count_figures)
