"""Outages as sentences for users: a database that is locked, full or away, and a full disk."""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

import sqlalchemy as sa

from app.registry.errors import AppError, StorageFullError
from app.registry.storage.store import DISK_FULL, FULL

OUTAGES: tuple[type[Exception], ...] = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,
    sa.exc.TimeoutError,
    OSError,
)
"""Errors of the database, its pool of connections and the disk while they cannot be used."""

NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE})
LOCKED_STATES = frozenset({"25P03", "40001", "40P01", "55P03", "57014"})
"""PostgreSQL: a transaction that idled for too long, serialization failure, deadlock, lock not
available, statement timeout."""
DISK_FULL_STATE = "53100"
READ_ONLY_STATE = "25006"
NO_SAVEPOINT = "no such savepoint"  # the error before ended the transaction of SQLite
# SQLite's primary codes but SQLITE_ERROR, which is a mistake of the program
SQLITE_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)


class DatabaseBusy(AppError, status=503, title="Busy", code="database_busy"):
    """Another process held the database for longer than a request waits."""


class DatabaseUnavailable(
    AppError, status=503, title="The database does not answer", code="database_unavailable"
):
    """The database cannot be reached, read or written."""


class ServerBusy(AppError, status=503, title="Busy", code="server_busy"):
    """The server has too many files and connections open."""


def outage(error: BaseException) -> AppError | None:
    """The error for users if the database or the disk cannot be used now; None for other errors.

    It is a DatabaseBusy, a DatabaseUnavailable, a StorageFullError or a ServerBusy.
    """
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool became free
        return _busy()
    if isinstance(error, sa.exc.DBAPIError):
        return _database_outage(error)
    if isinstance(error, sqlite3.Error):
        return _sqlite_outage(error)
    if isinstance(error, OSError) and error.errno in FULL:
        return StorageFullError(DISK_FULL)
    if isinstance(error, OSError) and error.errno in NO_MORE_FILES:
        return ServerBusy("Too many requests at once. Try again in a moment.")
    return None


def _database_outage(error: sa.exc.DBAPIError) -> AppError | None:
    driver_error: Any = error.orig
    if isinstance(driver_error, sqlite3.Error):
        return _sqlite_outage(driver_error)
    state = getattr(driver_error, "sqlstate", None)
    if state in LOCKED_STATES:
        return _busy()
    if state == DISK_FULL_STATE:
        return StorageFullError(
            "The disk of the database server is full, so nothing was changed. Free some space "
            "there, then try again."
        )
    if isinstance(error, sa.exc.InternalError) and state != READ_ONLY_STATE:
        return None
    return _unavailable()


def _sqlite_outage(error: sqlite3.Error) -> AppError | None:
    """The error for a code of SQLite; its lowest byte is the kind."""
    if NO_SAVEPOINT in str(error) and error.__context__ is not None:
        return outage(error.__context__)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind = code & 0xFF
    if kind in SQLITE_LOCKED:
        return _busy()
    if kind == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StorageFullError(DISK_FULL)
    return _unavailable() if kind in SQLITE_AWAY else None


def _busy() -> DatabaseBusy:
    return DatabaseBusy(
        "The database is busy with something else, so nothing was changed. Try again in a moment."
    )


def _unavailable() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "The database cannot be used at the moment, so nothing was changed. Try again soon; if it "
        "stays so, `brushwork doctor` names the cause."
    )
