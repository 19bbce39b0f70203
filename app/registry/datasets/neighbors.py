"""The place of an image among those that a filter shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlmodel import Session

from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.listing.image_search import matching_ids
from app.registry.tables.datasets import Dataset


@dataclass(frozen=True)
class Neighbors:
    """The images before and after one, None at the ends; `number`: its own among `total`, from 1.

    `number` is None if the image does not match the filter, as after it got its caption.
    """

    previous: int | None
    next: int | None
    number: int | None
    total: int


def find_neighbors(
    session: Session, dataset: Dataset, image_id: int, wanted: ImageFilter
) -> Neighbors:
    """The neighbors of an image in the order of a filter, also if it does not match itself."""
    ids = matching_ids(session, dataset, wanted)
    if image_id in ids:
        place = ids.index(image_id)
        after = ids[place + 1 : place + 2]
        before = ids[place - 1] if place else None
        return Neighbors(before, after[0] if after else None, place + 1, len(ids))
    every = replace(wanted, show=frozenset(), with_words=(), without_words=(), q="")
    order = matching_ids(session, dataset, every)
    place = order.index(image_id) if image_id in order else 0
    shown = set(ids)
    before = next((key for key in reversed(order[:place]) if key in shown), None)
    following = next((key for key in order[place:] if key in shown), None)
    return Neighbors(before, following, None, len(ids))
