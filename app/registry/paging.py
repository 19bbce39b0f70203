"""Parts of lists: numbered pages for people, and cursors for programs."""

from __future__ import annotations

import base64
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, SQLModel, func, select

from app.registry.errors import InvalidInput

MAX_CURSOR = 2_000  # characters
FOREIGN_CURSOR = (
    "This cursor is not valid for this list and sort order. Start at the first page, and follow "
    "its links."
)
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
    before: int | ColumnElement[bool] | None = None,
    order: Sequence[ColumnElement[Any]] = (),
) -> Page[RowT]:
    """The rows of a table under these conditions, those with the highest ids first.

    `before`: only those with a lower id, or under this condition, for programs; `total` counts all.
    `order`: another order.
    """
    key = sa.inspect(table).primary_key[0]
    total = session.exec(select(func.count()).select_from(table).where(*conditions)).one()
    query = select(table).where(*conditions).order_by(*(order or (key.desc(),)))
    if before is not None:
        query = query.where(key < before if isinstance(before, int) else before)
    rows = session.exec(query.offset((number - 1) * size).limit(size)).all()
    return Page(rows, total, number, size)


def write_cursor(scope: str, position: Sequence[Any]) -> str:
    """The position of an item in a list as text for a URL; `scope` names the list and its order."""
    content = json.dumps([scope, *position], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def read_cursor(scope: str, text: str, field: str = "cursor") -> tuple[Any, ...]:
    """The position in a cursor of this list. Raises InvalidInput for any other text."""
    try:
        padded = text[:MAX_CURSOR] + "=" * (-len(text) % 4)
        found, *position = json.loads(base64.b64decode(padded, b"-_", validate=True))
        if found != scope:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise foreign_cursor(field) from None
    return tuple(position)


def foreign_cursor(field: str = "cursor") -> InvalidInput:
    """The error for a cursor that belongs to another list or order, or is none."""
    return InvalidInput(FOREIGN_CURSOR, fields={field: FOREIGN_CURSOR})


def position_after(keys: Sequence[tuple[Any, ...]], position: Sequence[Any]) -> int:
    """The index of the first item after this position: `direction_of` the list, and a key.

    In a list in the order of its keys the item with this key may be gone. Raises InvalidInput if it
    is gone from a list in another order.
    """
    try:
        direction, *parts = position
        key = tuple(parts)
        if direction > 0:
            return bisect_right(keys, key)
        if direction < 0:
            return len(keys) - bisect_left(keys[::-1], key)
        return list(keys).index(key) + 1
    except (TypeError, ValueError):
        raise foreign_cursor() from None


def direction_of(keys: Sequence[tuple[Any, ...]]) -> int:
    """1 for ascending keys, -1 for descending ones, 0 for any other order."""
    ordered = sorted(keys)
    return 1 if ordered == list(keys) else -1 if ordered == list(reversed(keys)) else 0
