"""Lists of the API: a part at a time, and the address of the next part in the header `Link`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode
from zlib import crc32

from fastapi import Depends, Query, Request, Response

from app.registry.db import MAX_ID
from app.registry.paging import (
    MAX_CURSOR,
    direction_of,
    foreign_cursor,
    position_after,
    read_cursor,
    write_cursor,
)

USUAL_LIMIT = 50
MAX_LIMIT = 1_000
PARAMETERS = ("limit", "cursor")
ItemT = TypeVar("ItemT")


class ListPart:
    """The part of a list that a request asks for; answering it writes the headers.

    A cursor is valid for the address and the filters that it was made for, with any limit.
    """

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[
            int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")
        ] = USUAL_LIMIT,
        cursor: Annotated[
            str,
            Query(max_length=MAX_CURSOR, description="Where to go on, from the header `Link`."),
        ] = "",
    ) -> None:
        self.limit, self.cursor = limit, cursor
        query = request.query_params.multi_items()
        self._query = [(name, value) for name, value in query if name not in PARAMETERS]
        self._path, self._headers = request.url.path, response.headers
        whole = f"{self._path}?{urlencode(sorted(self._query))}"
        self._scope = f"{crc32(whole.encode()):x}"

    @property
    def size(self) -> int:
        """The number of rows to read: one more than are shown tells that there are others."""
        return self.limit + 1

    @property
    def position(self) -> tuple[Any, ...] | None:
        """The key of the last item of the part before; None at the start."""
        return read_cursor(self._scope, self.cursor) if self.cursor else None

    @property
    def after(self) -> int | None:
        """The position in a list whose keys are ids."""
        position = self.position
        if position is None:
            return None
        (key,) = position if len(position) == 1 else (None,)
        if type(key) is not int or not 0 < key <= MAX_ID:
            raise foreign_cursor()
        return key

    @property
    def mark(self) -> str:
        """The text that `link` was given for the part before; empty at the start."""
        position = self.position
        return str(position[0]) if position else ""

    def of(self, items: Sequence[ItemT], key: Callable[[ItemT], Any]) -> Sequence[ItemT]:
        """The part of a whole list; keys are numbers, texts or tuples of them."""
        keys = [_as_tuple(key(item)) for item in items]
        position, start = self.position, 0
        if position is not None:
            start = position_after(keys, position)
        direction = direction_of(keys)
        return self.cut(
            items[start : start + self.size],
            lambda item: (direction, *_as_tuple(key(item))),
            total=len(items),
        )

    def cut(
        self, items: Sequence[ItemT], key: Callable[[ItemT], Any], *, total: int | None = None
    ) -> Sequence[ItemT]:
        """The part of the rows that were read from `after` on, at most `size`."""
        shown = items[: self.limit]
        self.link(key(shown[-1]) if len(items) > self.limit else None, total)
        return shown

    def link(self, position: Any, total: int | None) -> None:
        """Name the part after this position, unless it is None, and the number of all items."""
        if total is not None:
            self._headers["x-total-count"] = str(total)
        if position is not None:
            cursor = write_cursor(self._scope, _as_tuple(position))
            query = urlencode([*self._query, ("limit", self.limit), ("cursor", cursor)])
            self._headers["link"] = f'<{self._path}?{query}>; rel="next"'


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return tuple(key) if isinstance(key, tuple) else (key,)


Part = Annotated[ListPart, Depends()]
"""The part of a list that a request asks for."""
Whose = Annotated[
    Literal["mine", "shared"] | None,
    Query(description="With accounts: only your own, or only those of others."),
]
"""Which part of a list by owner."""
