"""Parts of lists: numbered pages for people, and rows below an id for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, SQLModel, func, select

ItemT = TypeVar("ItemT")
OtherT = TypeVar("OtherT")
RowT = TypeVar("RowT", bound=SQLModel)


@dataclass(frozen=True)
class Page(Generic[ItemT]):
    """Page `number` of a list, from 1: at most `size` items of `total`."""

    items: Sequence[ItemT]
    total: int
    number: int
    size: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return page_count(self.total, self.size)

    @property
    def first(self) -> int:
        """The place of its first item in the list, from 1."""
        return (self.number - 1) * self.size + 1

    def of(self, items: Sequence[OtherT]) -> Page[OtherT]:
        """The page with these in place of its items."""
        return Page(items, self.total, self.number, self.size)


FoundT = TypeVar("FoundT", bound=Page[Any])


def page_count(total: int, size: int) -> int:
    """The number of pages of `size` rows for so many rows; an empty list has one page."""
    return max(1, -(-total // size))


def page_of(items: Sequence[ItemT], number: int, size: int) -> Page[ItemT]:
    """The page of these items with this number, the last one if there are fewer pages."""
    number = max(1, min(number, page_count(len(items), size)))
    return Page(items[(number - 1) * size : number * size], len(items), number, size)


def find_page(read: Callable[[int], FoundT], number: int) -> FoundT:
    """The page that `read` gives for this number, the last one if there are fewer pages."""
    found = read(number)
    return found if number <= found.pages else read(found.pages)


def read_rows(
    session: Session,
    table: type[RowT],
    *conditions: ColumnElement[bool],
    size: int,
    number: int = 1,
    before: int | None = None,
    order: Sequence[ColumnElement[Any]] = (),
) -> Page[RowT]:
    """The rows of a table under these conditions, those with the highest ids first.

    `before`: only those with a lower id, for programs; `total` counts all. `order`: another order.
    """
    key = sa.inspect(table).primary_key[0]
    total = session.exec(select(func.count()).select_from(table).where(*conditions)).one()
    query = select(table).where(*conditions).order_by(*(order or (key.desc(),)))
    if before is not None:
        query = query.where(key < before)
    rows = session.exec(query.offset((number - 1) * size).limit(size)).all()
    return Page(rows, total, number, size)
