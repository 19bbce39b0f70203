"""Database engine, sessions and the unit of work: commit first, then send wake-ups."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy import Engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import QueuePool
from sqlmodel import Session as Session  # for the layers above, which import no sqlmodel
from sqlmodel import SQLModel

from app.registry.actor import Limits, current_principal
from app.registry.errors import InvalidInput

log = structlog.get_logger()

Keys = ParamSpec("Keys")
Found = TypeVar("Found")

WORKER_PATIENCE_SECONDS = 30  # how long workers and commands wait for a lock or a connection
WEB_PATIENCE_SECONDS = 10  # how long a request waits: then its answer is 503
IDLE_SECONDS = 60  # how long a transaction of PostgreSQL may wait for its next statement
WEB_ANSWER_SECONDS = 15.0  # longer than a request waits for a lock
VALUES_AT_ONCE = 500  # in one SQL statement; every database takes more
MAX_ID = 2**31 - 1  # the largest id that every database can hold
IDLE_LIMIT = "idle_in_transaction_session_timeout"  # of PostgreSQL
WAKEUPS = "wakeups"  # key in `Session.info`
PRINCIPAL = "principal"  # the same: the person whose rights limit the session
DATABASE = "database"  # the same: what opened the session
LIMITS = "limits"  # the same: what people may take; None without accounts
SNAPSHOT = "snapshot"  # the same: every statement sees one state of the database
# key in the `info` of a column: blobs that it names, if any, belong to another table
KEEPS_NO_BLOB = "keeps_no_blob"
# of tables: SQLite reuses the ids of deleted rows, to which events and other rows may still refer
AUTOINCREMENT = {"sqlite_autoincrement": True}

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


def in_chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    """These values in lists short enough for one SQL statement, in a stable order."""
    ordered = sorted(values)
    for start in range(0, len(ordered), VALUES_AT_ONCE):
        yield ordered[start : start + VALUES_AT_ONCE]


def make_engine(
    url: str, *, patience: int = WORKER_PATIENCE_SECONDS, answer_seconds: float | None = None
) -> Engine:
    """An engine for SQLite (WAL, explicit transactions) or PostgreSQL.

    It waits `patience` seconds for locks and for a connection of its pool. Without an answer of
    PostgreSQL for `answer_seconds`, the connection counts as lost. PostgreSQL ends a transaction
    that idles for `IDLE_SECONDS`, as one of a process that hangs: it may keep rows locked.
    Errors do not tell the values of a statement, such as the hash of a password.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
            pool_timeout=patience,
        )
        event.listen(engine, "do_connect", partial(_connect, answer_seconds=answer_seconds))
        settings = (
            f"SET lock_timeout = '{patience}s'",
            f"SET {IDLE_LIMIT} = '{IDLE_SECONDS}s'",
            "SET jit = off",  # compiling a statement takes longer than any of them
        )
        event.listen(engine, "connect", partial(_configure, statements=settings))
        return engine
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=10,
        max_overflow=30,
        pool_timeout=patience,
        connect_args={"timeout": patience},
    )
    pragmas = (
        f"PRAGMA busy_timeout={1000 * patience}",
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=NORMAL",
        "PRAGMA foreign_keys=ON",
        "PRAGMA secure_delete=ON",  # what is deleted for good is overwritten
    )
    event.listen(engine, "connect", partial(_configure, statements=pragmas))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _connect(
    _dialect: Any, _record: Any, _arguments: Any, options: Any, *, answer_seconds: float | None
) -> Any:
    from app.registry import postgres  # who uses SQLite need not load psycopg

    return postgres.connect(options, answer_seconds=answer_seconds)


def _configure(connection: Any, _record: Any, *, statements: tuple[str, ...]) -> None:
    """Run these on a new connection, outside of a transaction."""
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None  # _begin_sqlite begins the transactions
    else:
        connection.autocommit = True
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
    except Exception as error:  # as everywhere else, callers see only SQLAlchemy's errors
        connection.close()
        raise sa.exc.OperationalError(statements[0], None, error) from error
    if not isinstance(connection, sqlite3.Connection):
        connection.autocommit = False


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


class PlainJSON(sa.JSON):
    """The type of a JSON column that keeps no blob, like a column with `KEEPS_NO_BLOB`."""


class Database:
    """The registry's database: `read()` and `write()` give sessions."""

    def __init__(
        self,
        engine: Engine,
        send_wakeup: Callable[[str], None] | None = None,
        *,
        check_rows: Callable[[Session], None] | None = None,
        book_rows: Callable[[Session, Sequence[Any]], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`check_rows`: called with a session before it writes rows; it may raise.

        `book_rows`: with accounts, called with a session and its new rows before it commits; it may
        raise. `limits`: of people of whom nothing else was said; None without accounts.
        """
        self.engine = engine
        self._reading = engine.execution_options(readonly=True)
        self._single = self._reading
        if not self.is_sqlite:
            self._single = self._reading.execution_options(isolation_level="AUTOCOMMIT")
        self._send_wakeup = send_wakeup
        self.limits = limits
        self._check_rows = check_rows
        self.book_rows = book_rows

    @property
    def is_sqlite(self) -> bool:
        """True for the embedded SQLite database."""
        return self.engine.dialect.name == "sqlite"

    def _info(self) -> dict[str, Any]:
        return {DATABASE: self, PRINCIPAL: current_principal(), LIMITS: self.limits}

    @contextmanager
    def read(self, *, once: bool = False) -> Iterator[Session]:
        """A session for reading; loaded rows stay usable after it closes.

        `once`: for one statement, for which PostgreSQL need not begin and end a transaction.
        """
        engine = self._single if once else self._reading
        with _errors_for_people(), Session(engine, expire_on_commit=False) as session:
            session.info.update(self._info())
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session for reading in which every statement sees the same state of the database.

        With SQLite every session does; one of PostgreSQL otherwise sees what was committed between
        its statements.
        """
        with self.read() as session:
            session.info[SNAPSHOT] = True
            if not self.is_sqlite:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end or rolls back; wake-ups are sent after the commit."""
        check, book = self._check_rows, self.book_rows if self.limits else None
        new: list[Any] = []
        with _errors_for_people(), Session(self.engine, expire_on_commit=False) as session:
            session.info.update(self._info())
            if check is not None:
                event.listen(session, "before_flush", lambda writer, *_: check(writer))
            if book is not None:
                event.listen(session, "before_flush", lambda writer, *_: new.extend(writer.new))
            yield session
            if book is not None:
                session.flush()
                book(session, new)
            session.commit()
            wakeups: set[str] = session.info.pop(WAKEUPS, set())
        if self._send_wakeup:
            for queue in sorted(wakeups):
                self._send_wakeup(queue)

    def forget_deleted_text(self) -> None:
        """On SQLite, empty the write-ahead log, which still has the text of deleted rows.

        While another transaction reads, or after an error, it stays until the next time.
        """
        if not self.is_sqlite:
            return
        try:
            self._empty_log()
        except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            log.warning("The write-ahead log was not emptied.", error=str(error))

    def _empty_log(self) -> None:
        with self.engine.connect() as connection:
            connection.rollback()  # no checkpoint inside the transaction of `_begin_sqlite`
            cursor = connection.connection.cursor()
            ((patience,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
            cursor.execute("PRAGMA busy_timeout=0")
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                cursor.execute(f"PRAGMA busy_timeout={patience}")
                cursor.close()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def allow_idling(connection: sa.Connection) -> None:
    """Let this transaction idle: it locks what has to stay so until something else has ended."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL {IDLE_LIMIT} = 0")


def advisory_lock(session: Session, key: int, *, shared: bool = False) -> None:
    """Take PostgreSQL's lock of this key until the transaction ends; SQLite has one writer anyway.

    `shared`: with others that only share it.
    """
    if session.get_bind().dialect.name == "postgresql":
        lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
        session.connection().execute(sa.select(lock(key)))


def is_snapshot(session: Session) -> bool:
    """True if every statement of this session sees the same state of the database."""
    return SNAPSHOT in session.info


def cached_by_snapshot(
    read: Callable[Concatenate[Session, Keys], Found],
) -> Callable[Concatenate[Session, Keys], Found]:
    """Let `read(session, *keys)` query once for the same keys in a snapshot: nothing can change."""

    def read_once(session: Session, /, *args: Keys.args, **kwargs: Keys.kwargs) -> Found:
        if not is_snapshot(session):
            return read(session, *args, **kwargs)
        key = (read, args, tuple(kwargs.items()))
        if key not in session.info:
            session.info[key] = read(session, *args, **kwargs)
        found: Found = session.info[key]
        return found

    update_wrapper(read_once, read)
    return read_once


def upsert(
    session: Session, table: type[SQLModel], rows: Iterable[dict[str, Any]], changes: dict[str, Any]
) -> None:
    """Insert these rows; make these changes to those whose primary key is there already."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(list(rows))
    keys = sa.inspect(table).primary_key
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=list(keys), set_=changes)
    )


def wake_after_commit(session: Session, queue: str) -> None:
    """Wake a worker of `queue` after this session commits; never if it rolls back."""
    session.info.setdefault(WAKEUPS, set()).add(queue)


def database_now(session: Session) -> datetime:
    """The time by the clock all lease holders share: the server's; with SQLite, this host's."""
    if session.get_bind().dialect.name == "sqlite":
        return utcnow()
    now: datetime = session.connection().execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)
