"""The list of adapters: filters, pages and counts.

Pages use cursors (the position of a row in the order), so the thousandth page costs as much as the
first, and no row is shown twice when new ones arrive. There are two strategies:

narrow  if at most `MAX_SORTED_IN_PYTHON` rows match the words and marks of the filters (`search`),
        all are fetched, counted and sorted here
broad   otherwise an index in the requested order is scanned until a page is full; counts stop early
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from app.registry.adapters.library import search
from app.registry.adapters.library.cards import AdapterSummary, summarize
from app.registry.db import MAX_ID
from app.registry.errors import invalid_field
from app.registry.paging import foreign_cursor, read_cursor, write_cursor
from app.registry.tables.adapters import Adapter, AdapterTag, is_in_library
from app.registry.tables.owned import all_parts, everything, hidden_rows
from worker.core.families.family import BaseFamily
from worker.core.words import Labeled

ADAPTERS_A_PAGE = 24
MAX_SORTED_IN_PYTHON = 1_000
COUNT_END = 10_000  # counts stop here
STARRED = "starred"  # key in counts, next to those of the families
Key = tuple[Any, int]  # position of a row in the order: the sort value, then the id


class Sort(Labeled):
    """Sort orders of the list of adapters."""

    NEWEST = "newest", "Newest first"
    OLDEST = "oldest", "Oldest first"
    NAME = "name", "Name, A to Z"
    NAME_DOWN = "name-down", "Name, Z to A"

    @property
    def is_descending(self) -> bool:
        """True if the greatest value comes first."""
        return self in (Sort.NEWEST, Sort.NAME_DOWN)

    @property
    def by_time(self) -> bool:
        """True if the list is sorted by the time of the last version, not by name."""
        return self in (Sort.NEWEST, Sort.OLDEST)

    @property
    def column(self) -> ColumnElement[Any]:
        """The column to sort by; the id breaks ties."""
        columns: dict[bool, Any] = {True: Adapter.updated_at, False: Adapter.sort_name}
        column: ColumnElement[Any] = columns[self.by_time]
        return column

    def key(self, adapter: Any) -> Key:
        """Position of an adapter, or a row with its columns, in this order."""
        return (adapter.updated_at if self.by_time else adapter.sort_name, adapter.id)


@dataclass(frozen=True)
class Filter:
    """Filters, sort order and position of the list of adapters; all are part of the URL.

    `after` and `before` are cursors from another page; without one, `page` counts from the start.
    """

    q: str = ""
    base: str = ""
    tags: tuple[str, ...] = ()
    starred: bool = False
    sort: Sort = Sort.NEWEST
    page: int = 1
    after: str = ""
    before: str = ""
    limit: int | None = None

    @property
    def size(self) -> int:
        """Adapters of a page."""
        return self.limit or ADAPTERS_A_PAGE


@dataclass(frozen=True)
class AdapterPage:
    """One page of the list, with cursors of the adjacent pages and counts.

    `total` is exact unless `more` is set: then there are more. A family's count is None if counting
    is too expensive, and more than `COUNT_END` if counting stopped there.
    """

    items: list[AdapterSummary]
    total: int
    more: bool
    families: Mapping[str, int | None]
    starred: int | None
    previous: str | None
    next: str | None


def list_adapters(session: Session, filters: Filter) -> AdapterPage:
    """The page of adapters for this filter. Raises InvalidInput for an invalid cursor."""
    with all_parts(session):  # tags of adapters that the same statements limit
        return _find_page(session, filters)


def _find_page(session: Session, filters: Filter) -> AdapterPage:
    needles = search.needles(filters.q)
    tags = tuple(tag.strip().lower() for tag in filters.tags if tag.strip())
    filters = replace(filters, tags=tags)
    start = _read_cursor(filters)
    if (filters.q.strip() and not needles) or any("\0" in tag for tag in tags):
        return AdapterPage([], 0, False, {}, 0, None, None)
    first = [*needles, *map(search.tag_mark, tags)]
    ids = search.candidates(session, first, most=MAX_SORTED_IN_PYTHON) if first else None
    if ids is not None:
        return _page_of_ids(session, filters, ids, start)
    second = [search.family_mark(filters.base)] if filters.base else []
    second += [search.STAR_MARK] if filters.starred else []
    ids = (
        search.candidates(session, [*first, *second], most=MAX_SORTED_IN_PYTHON) if second else None
    )
    if ids is not None:
        page = _page_of_ids(session, filters, ids, start)
        if first:
            return replace(page, families=_find_families(session), starred=None)
        families, starred = _count_by_filter(session)
        return replace(page, families=families, starred=starred)
    return _page_by_scan(session, filters, needles, start)


def _page_of_ids(
    session: Session, filters: Filter, ids: Sequence[int], start: Key | None
) -> AdapterPage:
    """The page, sorted from a few rows that are all fetched; counts are exact."""
    columns: list[Any] = [Adapter.id, Adapter.base_family, Adapter.starred]
    columns += [Adapter.updated_at, Adapter.sort_name]
    query = select(*columns)
    found = query.where(is_in_library(), _has_id(session, ids), *_has_tags(filters))
    rows = session.exec(found).all()
    families = Counter(row.base_family for row in rows)
    starred = sum(row.starred for row in rows)
    fitting = [
        row
        for row in rows
        if filters.base in ("", row.base_family) and (row.starred or not filters.starred)
    ]
    places = sorted(map(filters.sort.key, fitting), reverse=filters.sort.is_descending)
    first = _first_index(filters, places, start)
    shown = places[first : first + filters.size]
    keys = [key for _, key in shown]
    with everything(session):  # these were just seen
        adapters = {
            row.key: row for row in session.exec(select(Adapter).where(col(Adapter.id).in_(keys)))
        }
    return AdapterPage(
        items=summarize(session, [adapters[key] for key in keys if key in adapters]),
        total=len(places),
        more=False,
        families=families,
        starred=starred,
        previous=_write_cursor(filters.sort, shown[0]) if shown and first else None,
        next=_write_cursor(filters.sort, shown[-1]) if first + len(shown) < len(places) else None,
    )


def _first_index(filters: Filter, places: Sequence[Key], start: Key | None) -> int:
    """Index of the page's first row."""
    if start is None:
        return (filters.page - 1) * filters.size
    down = filters.sort.is_descending
    if filters.after:
        return sum((place >= start) if down else (place <= start) for place in places)
    earlier = sum((place > start) if down else (place < start) for place in places)
    return max(0, earlier - filters.size)


def _page_by_scan(
    session: Session, filters: Filter, needles: Sequence[str], start: Key | None
) -> AdapterPage:
    """The page, from a scan along the index of the sort order."""
    conditions = [is_in_library(), *_has_tags(filters)]
    if needles:
        conditions.append(search.matches(needles))
    if filters.base:
        conditions.append(col(Adapter.base_family) == filters.base)
    if filters.starred:
        conditions.append(col(Adapter.starred).is_(True))
    rows, has_more = _scan_rows(session, filters, conditions, start)
    if filters.before:
        has_earlier, has_later = has_more, True
    else:
        has_earlier, has_later = bool(filters.after) or filters.page > 1, has_more
    place = filters.sort.key
    families: Mapping[str, int | None]
    starred: int | None
    if needles or filters.tags:
        total, more = MAX_SORTED_IN_PYTHON, True
        if filters.base or filters.starred:
            total, more = _count_up_to(session, conditions, MAX_SORTED_IN_PYTHON)
        families, starred = _find_families(session), None
    else:
        families, starred = _count_by_filter(session)
        total, more = _count_total(session, filters, families, starred)
    return AdapterPage(
        items=summarize(session, rows),
        total=total,
        more=more,
        families=families,
        starred=starred,
        previous=_write_cursor(filters.sort, place(rows[0])) if rows and has_earlier else None,
        next=_write_cursor(filters.sort, place(rows[-1])) if rows and has_later else None,
    )


def _scan_rows(
    session: Session,
    filters: Filter,
    conditions: Sequence[ColumnElement[bool]],
    start: Key | None,
) -> tuple[list[Adapter], bool]:
    """(a page of rows in order, whether there are more in the scan direction)."""
    column, key = filters.sort.column, col(Adapter.id)
    down = filters.sort.is_descending != bool(filters.before)
    query = select(Adapter).where(*conditions)
    if start is not None:
        place, here = sa.tuple_(column, key), sa.tuple_(sa.literal(start[0], column.type), start[1])
        query = query.where(place < here if down else place > here)
    else:
        query = query.offset((filters.page - 1) * filters.size)
    order = (column.desc(), key.desc()) if down else (column.asc(), key.asc())
    rows = list(session.exec(query.order_by(*order).limit(filters.size + 1)))
    has_more = len(rows) > filters.size
    rows = rows[: filters.size]
    return (rows[::-1] if filters.before else rows), has_more


def _find_families(session: Session) -> dict[str, None]:
    """The families that have adapters, uncounted."""
    family = sa.column("family", sa.String)
    families = sa.values(family, name="families").data([(name,) for name in BaseFamily]).cte()
    has_adapters = sa.exists().where(col(Adapter.base_family) == families.c.family, is_in_library())
    return dict.fromkeys(session.exec(select(families.c.family).where(has_adapters)))


def _count_by_filter(session: Session) -> tuple[dict[str, int | None], int]:
    """Number of adapters per family and of starred adapters."""
    hidden = _count_hidden(session)
    most = COUNT_END + 1 + hidden.total()
    counted: list[Any] = [
        *(_at_most(most, col(Adapter.base_family) == family) for family in BaseFamily),
        _at_most(most, col(Adapter.starred).is_(True)),
    ]
    with everything(session):
        *families, starred = session.exec(select(*counted)).one()
    found = dict(zip([*BaseFamily, STARRED], [*families, starred], strict=True))
    seen = {name: n - hidden[name] for name, n in found.items() if n > hidden[name]}
    return seen, seen.pop(STARRED, 0)


def _count_hidden(session: Session) -> Counter[str]:
    """Number of adapters per family, and of starred ones, that the person does not see.

    Few are private, so they are counted apart: their condition need not be asked of all others.
    """
    columns = ("base_family", "starred", "run_id", "deleted_at")
    hidden = hidden_rows(session, Adapter, *columns)
    if hidden is None:
        return Counter()
    found = Counter[str]()
    for family, starred, number in session.connection().execute(_grouped(hidden)):
        found.update({family: number, STARRED: number * starred})
    return found


@lru_cache(maxsize=1)
def _grouped(hidden: sa.Select[Any]) -> sa.Select[Any]:
    rows = hidden.subquery().c
    is_listed = rows.run_id.is_(None) & rows.deleted_at.is_(None)
    groups = (rows.base_family, rows.starred)
    return sa.select(*groups, func.count()).where(is_listed).group_by(*groups)


def _at_most(most: int, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """Number of adapters that fulfill these conditions, counted up to `most`."""
    rows = sa.select(sa.literal(1)).select_from(Adapter).where(is_in_library(), *conditions)
    return sa.select(func.count()).select_from(rows.limit(most).subquery()).scalar_subquery()


def _count_up_to(
    session: Session, conditions: Sequence[ColumnElement[bool]], most: int
) -> tuple[int, bool]:
    number = session.exec(select(_at_most(most + 1, *conditions))).one()
    return min(number, most), number > most


def _count_total(
    session: Session, filters: Filter, families: Mapping[str, int | None], starred: int | None
) -> tuple[int, bool]:
    """(number of adapters for filters without words or tags, whether there are more)."""
    numbers = [number or 0 for number in families.values()]
    if filters.base and filters.starred:
        conditions = (col(Adapter.base_family) == filters.base, col(Adapter.starred).is_(True))
        return _count_up_to(session, conditions, COUNT_END)
    if filters.base:
        numbers = [families.get(filters.base) or 0]
    elif filters.starred:
        numbers = [starred or 0]
    more = any(number > COUNT_END for number in numbers)
    return sum(min(number, COUNT_END) for number in numbers), more


def _has_id(session: Session, ids: Sequence[int]) -> ColumnElement[bool]:
    """Condition for adapters with one of these ids; an array is twice as fast as IN."""
    key = col(Adapter.id)
    if session.get_bind().dialect.name == "sqlite":
        return key.in_(ids)
    return key == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Integer)))


def _has_tags(filters: Filter) -> list[ColumnElement[bool]]:
    return [
        select(AdapterTag.tag)
        .where(AdapterTag.adapter_id == Adapter.id, AdapterTag.tag == tag)
        .exists()
        for tag in filters.tags
    ]


def _write_cursor(sort: Sort, place: Key) -> str:
    """The position of a row as text for a URL."""
    value, key = place
    return write_cursor(sort, (value.isoformat() if isinstance(value, datetime) else value, key))


def _read_cursor(filters: Filter) -> Key | None:
    """The position in the filter's cursor; None without one."""
    name = "after" if filters.after else "before"
    if filters.after and filters.before:
        raise invalid_field(name, "Send `after` or `before`, not both.")
    if not (filters.after or filters.before):
        return None
    if filters.page > 1:
        raise invalid_field(name, "Send a cursor or a page number, not both.")
    try:
        value, key = read_cursor(filters.sort, filters.after or filters.before, name)
        if type(key) is not int or not 0 < key <= MAX_ID:
            raise ValueError
        return (_sort_value(filters.sort, value), key)
    except ValueError:
        raise foreign_cursor(name) from None


def _sort_value(sort: Sort, value: object) -> Any:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    if not sort.by_time:
        value.encode()  # an unpaired surrogate raises ValueError
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    return moment
