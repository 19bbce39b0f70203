"""Which blobs of the store the rows refer to.

References are found from the table definitions, so new tables are covered: every column named
`…sha256`, and every SHA-256 in a JSON column. References of an io job count until a week after its
end, which then releases refused uploads and fused base models for download. Thumbnails are kept
as long as a row shows their image.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import SQLModel, col

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.registry.blobs import thumbnails
from app.registry.db import MENTIONS, Database
from app.registry.storage.store import BlobStat, BlobStore
from app.registry.tables.jobs import IoJob
from app.registry.tables.thumbnails import Thumbnail

ROWS_AT_ONCE = 1_000
ItemT = TypeVar("ItemT")
HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass
class Survey:
    """The blobs of the store and what the rows say about them.

    `unknown`: hashes that no row has named, not even one whose references no longer count.
    """

    stored: dict[str, BlobStat]
    in_trash: dict[str, BlobStat]
    unreferenced: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)  # in the trash, though a row refers to them

    def blobs(self, hashes: Iterable[str]) -> list[BlobStat]:
        """The stored blobs with these hashes."""
        return [self.stored[sha256] for sha256 in hashes]

    def in_trash_for_good(self, taken: Iterable[BlobStat], before: datetime) -> list[BlobStat]:
        """What lay in the trash since `before`, or twice, there and among the blobs.

        Without what rows refer to, and what this sweep has just `taken`.
        """
        stays = self.needed | {blob.sha256 for blob in taken}
        return [
            blob
            for sha256, blob in self.in_trash.items()
            if sha256 not in stays and (blob.modified < before or sha256 in self.stored)
        ]


def survey_store(
    database: Database,
    store: BlobStore,
    jobs_since: datetime,
    on_item: Callable[[], None] = lambda: None,
) -> Survey:
    """List the trash, then the blobs, then read what the rows refer to.

    So what another sweep discards meanwhile is not in both lists. References of io jobs count if
    they ended after `jobs_since`. `on_item` is called for each item.
    """
    in_trash = {blob.sha256: blob for blob in with_callback(store.list_trash(), on_item)}
    stored = {blob.sha256: blob for blob in with_callback(store.list(), on_item)}
    survey = Survey(stored, in_trash)
    survey.unreferenced, survey.unknown = set(survey.stored), set(survey.stored)
    if survey.stored or survey.in_trash:
        for sha256, keeps in _named_hashes(database, jobs_since, on_item):
            survey.unknown.discard(sha256)
            if keeps:
                survey.unreferenced.discard(sha256)
                if sha256 in survey.in_trash and sha256 not in survey.stored:
                    survey.needed.add(sha256)
    return survey


def with_callback(items: Iterable[ItemT], on_item: Callable[[], None]) -> Iterator[ItemT]:
    """Yield the items, calling `on_item` before each."""
    for item in items:
        on_item()
        yield item


def _named_hashes(
    database: Database, jobs_since: datetime, on_item: Callable[[], None]
) -> Iterator[tuple[str, bool]]:
    """(hash, whether the row that names it keeps its blob) from one snapshot; may repeat some."""
    with database.read() as session:
        if not database.is_sqlite:  # SQLite readers always see one snapshot
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        for table in SQLModel.metadata.sorted_tables:
            named, texts = reference_columns(table)
            if not (named or texts):
                continue
            query = sa.select(
                keeps(table, jobs_since), *named, *(sa.cast(column, sa.Text) for column in texts)
            )
            options = {"yield_per": ROWS_AT_ONCE}
            rows = session.connection().execute(query, execution_options=options)
            for is_kept, *values in with_callback(rows, on_item):
                for value in filter(None, values):
                    yield from ((sha256, bool(is_kept)) for sha256 in HASH.findall(value))


def keeps(table: sa.Table, jobs_since: datetime) -> sa.ColumnElement[bool]:
    """Whether a row of this table keeps the blobs it names."""
    if table is IoJob.__table__:  # type: ignore[attr-defined]
        ended = col(IoJob.finished_at)
        return ended.is_(None) | (ended >= jobs_since)
    if table is Thumbnail.__table__:  # type: ignore[attr-defined]
        return thumbnails.is_in_use()
    return sa.true()


@functools.cache
def reference_columns(table: sa.Table) -> tuple[list[Any], list[Any]]:
    """(columns with hashes, JSON columns that may contain hashes) of a table."""
    referring = [column for column in table.columns if MENTIONS not in column.info]
    return (
        [column for column in referring if column.name.endswith("sha256")],
        [column for column in referring if isinstance(column.type, sa.JSON)],
    )
