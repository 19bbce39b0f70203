"""Database engine, sessions and the unit of work: commit first, then send wake-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool
from sqlmodel import Session as Session  # for the layers above, which import no sqlmodel
from sqlmodel import SQLModel

from app.registry.errors import InvalidInput

log = structlog.get_logger()

SQLITE_BUSY_MILLISECONDS = 30_000
MAX_ID = 2**31 - 1  # the largest id that every database can hold
WAKEUPS = "wakeups"  # key in `Session.info`
# key in a column's `info`: the blobs it names belong to another table, so this does not keep them
MENTIONS = "mentions"

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING_CONVENTION


def utcnow() -> datetime:
    """The current time in UTC, timezone-aware."""
    return datetime.now(UTC)


def make_engine(url: str) -> Engine:
    """An engine for SQLite (WAL, explicit transactions) or PostgreSQL."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, poolclass=QueuePool, pool_size=10, max_overflow=30, connect_args={"timeout": 30}
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite begins the transactions
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"busy_timeout={SQLITE_BUSY_MILLISECONDS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that reads before it writes loses updates silently (measured), so
    # writers take the write lock at once. Readers never take it.
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


@contextmanager
def _errors_for_people() -> Iterator[None]:
    """Turn a value that the database cannot store into InvalidInput."""
    try:
        yield
    except sa.exc.DataError as error:
        log.info("unstorable", exc_info=error)
        raise InvalidInput(
            "The text contains characters that cannot be stored. Remove them, then try again."
        ) from error


class Database:
    """The registry's database: `read()` and `write()` give sessions."""

    def __init__(self, engine: Engine, send_wakeup: Callable[[str], None] | None = None) -> None:
        self.engine = engine
        self._send_wakeup = send_wakeup

    @property
    def is_sqlite(self) -> bool:
        """True for the embedded SQLite database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; loaded rows stay usable after it closes."""
        engine = self.engine.execution_options(readonly=True)
        with _errors_for_people(), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end or rolls back; wake-ups are sent after the commit."""
        with _errors_for_people(), Session(self.engine, expire_on_commit=False) as session:
            yield session
            session.commit()
            wakeups: set[str] = session.info.pop(WAKEUPS, set())
        if self._send_wakeup:
            for queue in sorted(wakeups):
                self._send_wakeup(queue)

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def wake_after_commit(session: Session, queue: str) -> None:
    """Wake a worker of `queue` after this session commits; never if it rolls back."""
    session.info.setdefault(WAKEUPS, set()).add(queue)


def database_now(session: Session) -> datetime:
    """The time by the clock all lease holders share: the server's; with SQLite, this host's."""
    if session.get_bind().dialect.name == "sqlite":
        return utcnow()
    now: datetime = session.connection().execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)
