"""Deletes blobs that no row refers to, once they are a day old.

References are found from the table definitions, so new tables are covered: every column named
`…sha256`, and every SHA-256 in a JSON column. References of an io job count until a week after its
end, which then releases refused uploads and fused base models for download. Thumbnails are kept
as long as a row shows their image.

Blobs that are stored during a sweep are safe. A blob is stored before the row that refers to it, so
the blobs are listed before the references are read. Storing the same bytes again renews a blob, so
its age is checked again just before it is deleted.

Blobs older than the database are never deleted: they may belong to another database.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

import app.registry.tables  # noqa: F401  (fills the metadata)
from app.registry.db import MENTIONS, Database, database_now, utcnow
from app.registry.jobs.kinds import JobKind, SweepArgs
from app.registry.jobs.models import JOB_FILES_KEPT, Event, IoJob
from app.registry.jobs.service import enqueue_io_if
from app.registry.jobs.states import ACTIVE
from app.registry.storage.store import BlobNotFound, BlobStore
from app.registry.thumbnails import service as thumbnails
from app.registry.thumbnails.models import Thumbnail

MIN_AGE = timedelta(hours=24)  # the row that refers to a blob is stored within this time
SWEEP_INTERVAL = timedelta(hours=24)
SWEEP_PRIORITY = 100  # after all other jobs
ROWS_AT_ONCE = 1_000
SWEEP_LOCK = 0x62727377  # key of PostgreSQL's advisory lock for ordering sweeps
ItemT = TypeVar("ItemT")
HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class SweepSummary:
    """Number and total size of the deleted files (or of those to delete, in a dry run)."""

    files: int
    size_bytes: int


def sweep(
    database: Database,
    store: BlobStore,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    on_item: Callable[[], None] = lambda: None,
) -> SweepSummary:
    """Delete unreferenced blobs; with `dry_run`, only count them.

    `on_item` is called for each item and may raise to stop the sweep.
    """
    now = now or utcnow()
    if not dry_run:
        with database.write() as session:
            thumbnails.delete_unused(session)
    first_event = _first_event_time(database)
    left = {
        blob.sha256: blob.size
        for blob in _with_callback(store.list(), on_item)
        if first_event is not None and first_event <= blob.modified < now - MIN_AGE
    }
    if left:
        for sha256 in _referenced_hashes(database, now - JOB_FILES_KEPT, on_item):
            left.pop(sha256, None)
    files = size_bytes = 0
    for sha256, size in _with_callback(left.items(), on_item):
        if _is_older(store, sha256, now - MIN_AGE):
            if not dry_run:
                store.delete(sha256)
            files, size_bytes = files + 1, size_bytes + size
    return SweepSummary(files, size_bytes)


def _first_event_time(database: Database) -> datetime | None:
    """Time of the first event in this registry; None if there is none."""
    with database.read() as session:
        return session.exec(select(Event.at).order_by(col(Event.id)).limit(1)).first()


def _with_callback(items: Iterable[ItemT], on_item: Callable[[], None]) -> Iterator[ItemT]:
    """Yield the items, calling `on_item` before each."""
    for item in items:
        on_item()
        yield item


def _is_older(store: BlobStore, sha256: str, before: datetime) -> bool:
    """True if the blob exists and was stored before this time."""
    with contextlib.suppress(BlobNotFound):
        return store.stat(sha256).modified < before
    return False


def _referenced_hashes(
    database: Database, jobs_since: datetime, on_item: Callable[[], None]
) -> Iterator[str]:
    """All hashes in the database, from one snapshot; may repeat some."""
    with database.read() as session:
        if not database.is_sqlite:  # SQLite readers always see one snapshot
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        for table in SQLModel.metadata.sorted_tables:
            named, texts = _reference_columns(table)
            if not (named or texts):
                continue
            query = sa.select(*named, *(sa.cast(column, sa.Text) for column in texts))
            if table is IoJob.__table__:  # type: ignore[attr-defined]
                ended = col(IoJob.finished_at)
                query = query.where(ended.is_(None) | (ended >= jobs_since))
            elif table is Thumbnail.__table__:  # type: ignore[attr-defined]
                query = query.where(thumbnails.is_in_use())
            options = {"yield_per": ROWS_AT_ONCE}
            rows = session.connection().execute(query, execution_options=options)
            for row in _with_callback(rows, on_item):
                for value in filter(None, row):
                    yield from HASH.findall(value)


def _reference_columns(table: sa.Table) -> tuple[list[Any], list[Any]]:
    """(columns with hashes, JSON columns that may contain hashes) of a table."""
    referring = [column for column in table.columns if MENTIONS not in column.info]
    return (
        [column for column in referring if column.name.endswith("sha256")],
        [column for column in referring if isinstance(column.type, sa.JSON)],
    )


def is_due(session: Session) -> bool:
    """True if no sweep is queued or running, and none ended within a day."""
    ended = col(IoJob.finished_at) >= database_now(session) - SWEEP_INTERVAL
    active = col(IoJob.status).in_(ACTIVE)
    recent = select(IoJob.id).where(IoJob.kind == JobKind.SWEEP, ended | active)
    return session.exec(recent.limit(1)).first() is None


def order_if_due(database: Database) -> IoJob | None:
    """Create a sweep job if one is due; of concurrent callers, only one creates it."""
    return enqueue_io_if(is_due, database, SweepArgs(), priority=SWEEP_PRIORITY, lock=SWEEP_LOCK)
