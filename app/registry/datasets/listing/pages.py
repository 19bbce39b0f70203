"""The images that match a filter page by page, also while images come, go and stop to match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlmodel import Session, col, func, select

from app.registry.datasets.filters import ALL_IMAGES, ImageFilter, Sort
from app.registry.datasets.listing.image_search import matching_ids, read_state
from app.registry.db import in_chunks
from app.registry.paging import page_count
from app.registry.tables.datasets import Dataset, Image, is_live

IMAGES_A_PAGE = 48  # fills rows of 2, 3, 4 and 6 tiles
BY_ID = (Sort.OLDEST, Sort.NEWEST)


@dataclass(frozen=True)
class ImagePage:
    """Images in the order of their filter: those from place `start` on, of `total` that match."""

    images: list[Image]
    start: int
    total: int
    size: int

    @property
    def page(self) -> int:
        """The number of the page on which the first image is, from 1."""
        return self.start // self.size + 1

    @property
    def pages(self) -> int:
        """The number of pages."""
        return page_count(self.total, self.size)

    @property
    def last(self) -> int | None:
        """The id of the last image if there are more after it, else None."""
        if self.start + len(self.images) >= self.total or not self.images:
            return None
        return self.images[-1].key


def read_page(
    session: Session,
    dataset: Dataset,
    wanted: ImageFilter = ALL_IMAGES,
    *,
    page: int = 1,
    after: int | None = None,
    size: int = IMAGES_A_PAGE,
) -> ImagePage:
    """A page of images, the last one if there are fewer pages.

    With `after`, the images that follow this one instead, also if it does not match any longer; the
    page of this number if it was deleted.
    """
    if wanted.is_all and wanted.sort in BY_ID:
        return _read_page_of_all(session, dataset, wanted, page, after, size)
    ids = matching_ids(session, dataset, wanted)
    start = None if after is None else _place_after(session, dataset, wanted, ids, after)
    if start is None:
        start = (min(page, page_count(len(ids), size)) - 1) * size
    images = load_images(session, ids[start : start + size])
    return ImagePage(images, start=start, total=len(ids), size=size)


def _read_page_of_all(
    session: Session, dataset: Dataset, wanted: ImageFilter, page: int, after: int | None, size: int
) -> ImagePage:
    """A page of all images by age, without reading the ids of those on the other pages."""
    key: Any = col(Image.id)
    total = read_state(session, dataset).count
    live = is_live(dataset.key)
    is_newest = wanted.sort is Sort.NEWEST
    start = (min(page, page_count(total, size)) - 1) * size
    if after is not None and session.exec(select(key).where(live, key == after)).first():
        until = key >= after if is_newest else key <= after
        start = session.exec(select(func.count()).select_from(Image).where(live, until)).one()
    query = select(key).where(live).order_by(key.desc() if is_newest else key)
    ids = session.exec(query.offset(start).limit(size)).all()
    return ImagePage(load_images(session, ids), start=start, total=total, size=size)


def page_of_image(session: Session, dataset: Dataset, image_id: int) -> int:
    """The number of the page of all images that shows this image, also if it is deleted."""
    place = sum(key < image_id for key in matching_ids(session, dataset))
    return place // IMAGES_A_PAGE + 1


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
    place = _place_after(session, dataset, wanted, ids, image_id) or 0
    number = place if image_id in ids else None
    before, after = ids[: place if number is None else place - 1], ids[place:]
    return Neighbors(before[-1] if before else None, after[0] if after else None, number, len(ids))


def load_images(session: Session, ids: Sequence[int]) -> list[Image]:
    """The images of these ids, in this order; deleted ones are left out."""
    found: dict[int, Image] = {}
    for chunk in in_chunks(ids):
        query = select(Image).where(col(Image.id).in_(chunk), col(Image.deleted_at).is_(None))
        found |= {image.key: image for image in session.exec(query)}
    return [found[key] for key in ids if key in found]


def _place_after(
    session: Session, dataset: Dataset, wanted: ImageFilter, ids: Sequence[int], image_id: int
) -> int | None:
    """The place among `ids` of the first image that follows this one; None if it is deleted."""
    if image_id in ids:
        return ids.index(image_id) + 1
    order = matching_ids(session, dataset, replace(ALL_IMAGES, sort=wanted.sort))
    if image_id not in order:
        return None
    before = set(order[: order.index(image_id)])
    return sum(key in before for key in ids)
