"""The files that rows refer to, found from the table definitions, so new tables are covered.

A reference is every column named `…sha256`, and every SHA-256 in a JSON column. References of an io
job count until a week after its end, which then releases refused uploads and fused base models for
download. Thumbnails are kept as long as a row shows their image.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.registry.blobs import thumbnails
from app.registry.db import KEEPS_NO_BLOB, Database, PlainJSON, in_chunks, utcnow
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import JOB_FILES_KEPT, IoJob

ROWS_AT_ONCE = 1_000
HASH_LENGTH = 64
HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
ItemT = TypeVar("ItemT")


@functools.cache
def reference_columns(table: sa.Table) -> tuple[list[Any], list[Any]]:
    """(columns with hashes, JSON columns that may contain hashes) of a table."""
    referring = [
        column
        for column in table.columns
        if KEEPS_NO_BLOB not in column.info and not isinstance(column.type, PlainJSON)
    ]
    return (
        [column for column in referring if column.name.endswith("sha256")],
        [column for column in referring if isinstance(column.type, sa.JSON)],
    )


def keeps_blobs(table: sa.Table, jobs_since: datetime) -> sa.ColumnElement[bool]:
    """Condition: a row of this table keeps the blobs it names; `jobs_since`: end of io jobs."""
    if table is IoJob.__table__:  # type: ignore[attr-defined]
        ended = col(IoJob.finished_at)
        return ended.is_(None) | (ended >= jobs_since)
    if table is Thumbnail.__table__:  # type: ignore[attr-defined]
        return thumbnails.IS_IN_USE
    return sa.true()


def find_referenced(session: Session, hashes: Iterable[str]) -> dict[str, str]:
    """The hashes among these that rows refer to, each with the name of one such table."""
    left, found = set(hashes), dict[str, str]()
    for table in SQLModel.metadata.sorted_tables:
        if left:
            found |= dict.fromkeys(_named_in(session, table, left), table.name)
            left -= found.keys()
    return found


def _named_in(session: Session, table: sa.Table, hashes: set[str]) -> Iterator[str]:
    named, texts = reference_columns(table)
    keeps = keeps_blobs(table, utcnow() - JOB_FILES_KEPT)
    for column in named:
        for chunk in in_chunks(hashes):
            query = sa.select(column).where(column.in_(chunk), keeps)
            yield from session.connection().execute(query).scalars()
    for column in texts:
        text = sa.cast(column, sa.Text)
        query = sa.select(text).where(sa.func.length(text) >= HASH_LENGTH, keeps)
        for (value,) in _stream(session, query):
            yield from hashes.intersection(HASH.findall(value))


def all_references(
    database: Database, jobs_since: datetime, on_item: Callable[[], None]
) -> Iterator[tuple[str, bool]]:
    """(hash, True if the row that names it keeps its blob) from one snapshot; may repeat some.

    References of io jobs keep blobs if they ended after `jobs_since`. `on_item` is called for each
    row.
    """
    with database.read() as session:
        if not database.is_sqlite:  # SQLite readers always see one snapshot
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        for table in SQLModel.metadata.sorted_tables:
            named, texts = reference_columns(table)
            if not (named or texts):
                continue
            columns = (*named, *(sa.cast(column, sa.Text) for column in texts))
            rows = _stream(session, sa.select(keeps_blobs(table, jobs_since), *columns))
            for keeps, *values in with_callback(rows, on_item):
                for value in filter(None, values):
                    yield from ((sha256, bool(keeps)) for sha256 in HASH.findall(value))


def _stream(session: Session, query: sa.Select[Any]) -> Iterable[Any]:
    options = {"yield_per": ROWS_AT_ONCE}
    return session.connection().execute(query, execution_options=options)


def with_callback(items: Iterable[ItemT], on_item: Callable[[], None]) -> Iterator[ItemT]:
    """Yield the items, calling `on_item` before each."""
    for item in items:
        on_item()
        yield item
