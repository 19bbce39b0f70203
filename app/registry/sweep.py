"""Blobs that nobody refers to: found, and taken away once they are a day old.

What counts as a reference is read from the tables themselves, so that a new one is covered: every
column named `…sha256`, and whatever looks like a SHA-256 in a JSON column. An io job counts until a
week after its end: the file of a refused upload or of a fused base for download then goes.

Nothing that is stored meanwhile is taken. A blob is stored first and referred to then, so the blobs
are listed before the references are read; and storing the same bytes again renews a blob, which is
looked at once more in the moment before it goes.

What is older than the database is left alone. It cannot have been stored by this registry: it is
another's, or the database was lost or is not the one that was meant.
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
from app.registry.jobs.service import enqueue_io
from app.registry.jobs.states import ACTIVE
from app.registry.storage.store import BlobNotFound, BlobStore

YOUNG = timedelta(hours=24)  # a blob is stored first; the row that refers to it comes within this
EVERY = timedelta(hours=24)
LAST = 100  # priority: after all that somebody waits for
ROWS_AT_ONCE = 1_000
SWEEP_LOCK = 0x62727377  # the key of PostgreSQL's advisory lock on orders of sweeps
ItemT = TypeVar("ItemT")
HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Swept:
    """How many files went, or would go, and their size together."""

    files: int
    size_bytes: int


def sweep(
    database: Database,
    store: BlobStore,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> Swept:
    """Take away the blobs that nobody refers to; with `dry_run`, only tell how much it would be.

    `pulse` is called all the time and may raise to break off: what went is gone, the rest stays.
    """
    now = now or utcnow()
    began = _began(database)
    left = {
        blob.sha256: blob.size
        for blob in _beating(store.list(), pulse)
        if began is not None and began <= blob.modified < now - YOUNG
    }
    if left:
        for sha256 in _references(database, now - JOB_FILES_KEPT, pulse):
            left.pop(sha256, None)
    files = size_bytes = 0
    for sha256, size in _beating(left.items(), pulse):
        if _is_older(store, sha256, now - YOUNG):
            if not dry_run:
                store.delete(sha256)
            files, size_bytes = files + 1, size_bytes + size
    return Swept(files, size_bytes)


def _began(database: Database) -> datetime | None:
    """When the first thing happened in this registry; None before that."""
    with database.read() as session:
        return session.exec(select(Event.at).order_by(col(Event.id)).limit(1)).first()


def _beating(items: Iterable[ItemT], pulse: Callable[[], None]) -> Iterator[ItemT]:
    """The items, with a call of `pulse` for each."""
    for item in items:
        pulse()
        yield item


def _is_older(store: BlobStore, sha256: str, before: datetime) -> bool:
    """False also for a blob that is gone."""
    with contextlib.suppress(BlobNotFound):
        return store.stat(sha256).modified < before
    return False


def _references(
    database: Database, jobs_since: datetime, pulse: Callable[[], None]
) -> Iterator[str]:
    """Every hash that the database refers to, some more than once; all as of one moment."""
    with database.read() as session:
        if not database.is_sqlite:  # where every reader has one moment anyway
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        for table in SQLModel.metadata.sorted_tables:
            named, texts = _columns(table)
            if not (named or texts):
                continue
            query = sa.select(*named, *(sa.cast(column, sa.Text) for column in texts))
            if table is IoJob.__table__:  # type: ignore[attr-defined]
                ended = col(IoJob.finished_at)
                query = query.where(ended.is_(None) | (ended >= jobs_since))
            options = {"yield_per": ROWS_AT_ONCE}
            rows = session.connection().execute(query, execution_options=options)
            for row in _beating(rows, pulse):
                for value in filter(None, row):
                    yield from HASH.findall(value)


def _columns(table: sa.Table) -> tuple[list[Any], list[Any]]:
    """The columns of a table that are hashes, and those of JSON that may hold some."""
    referring = [column for column in table.columns if MENTIONS not in column.info]
    return (
        [column for column in referring if column.name.endswith("sha256")],
        [column for column in referring if isinstance(column.type, sa.JSON)],
    )


def is_due(session: Session) -> bool:
    """True when no sweep waits, is at work or ended within a day."""
    ended = col(IoJob.finished_at) >= database_now(session) - EVERY
    active = col(IoJob.status).in_(ACTIVE)
    recent = select(IoJob.id).where(IoJob.kind == JobKind.SWEEP, ended | active)
    return session.exec(recent.limit(1)).first() is None


def order_if_due(database: Database) -> IoJob | None:
    """The job of the next sweep, made when it is due; of all who ask at once, one gets it."""
    with database.read() as session:
        if not is_due(session):
            return None
    with database.write() as session:
        if not database.is_sqlite:
            lock = sa.select(sa.func.pg_advisory_xact_lock(SWEEP_LOCK))
            session.connection().execute(lock)
        if not is_due(session):
            return None
        return enqueue_io(session, SweepArgs(), priority=LAST)
