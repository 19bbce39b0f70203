"""The images of a dataset page by page, by cursors that stay valid while images come and go."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.datasets.models import Image

IMAGES_A_PAGE = 60  # fills rows of 2 to 6 tiles


@dataclass(frozen=True)
class ImagePage:
    """Images, oldest first, and the cursors of the pages around them; None where there are none."""

    images: list[Image]
    previous: int | None
    next: int | None


def list_image_page(
    session: Session,
    dataset_id: int,
    *,
    show: str = "all",
    q: str = "",
    after: int = 0,
    size: int = IMAGES_A_PAGE,
) -> ImagePage:
    """The images whose id is greater than the cursor `after`; 0: the first page."""
    query = image_query(dataset_id, show=show, q=q)
    following = query.where(col(Image.id) > after).order_by(col(Image.id)).limit(size + 1)
    images = list(session.exec(following))
    more = len(images) > size
    images = images[:size]
    return ImagePage(
        images,
        previous=_cursor_before(session, dataset_id, after, show=show, q=q, size=size),
        next=images[-1].id if more else None,
    )


def image_query(dataset_id: int, *, show: str = "all", q: str = "") -> SelectOfScalar[Image]:
    """The images of a dataset in no order; `show="uncaptioned"`: only those without captions."""
    query = select(Image).where(Image.dataset_id == dataset_id, col(Image.deleted_at).is_(None))
    if show == "uncaptioned":
        query = query.where(Image.caption == "")
    if q:
        query = query.where(
            col(Image.caption).icontains(q, autoescape=True)
            | col(Image.filename).icontains(q, autoescape=True)
        )
    return query


def _cursor_before(
    session: Session, dataset_id: int, after: int, *, show: str, q: str, size: int
) -> int | None:
    """The cursor of the page that ends at `after`; None if no image comes before it."""
    if not after:
        return None
    query = image_query(dataset_id, show=show, q=q).where(col(Image.id) <= after)
    before = session.exec(query.order_by(col(Image.id).desc()).limit(size + 1)).all()
    if not before:
        return None
    return before[size].key if len(before) > size else 0


def cursor_of_image(
    session: Session, dataset_id: int, image_id: int, *, size: int = IMAGES_A_PAGE
) -> int:
    """The cursor of the page of all images that shows this image, also if it is deleted."""
    query = select(Image.id).where(
        Image.dataset_id == dataset_id, col(Image.deleted_at).is_(None), col(Image.id) < image_id
    )
    before = session.exec(query.order_by(col(Image.id))).all()
    page = len(before) // size
    return (before[page * size - 1] or 0) if page else 0
