"""Another transaction that waits for rows which a test has locked."""

from __future__ import annotations

from threading import Thread

import sqlalchemy as sa

from app.registry.db import Database

WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def start_and_wait(thread: Thread, database: Database) -> None:
    """Start it, and return once it has ended or waits for a lock of PostgreSQL.

    With SQLite, all of its write transaction comes after that of the test.
    """
    thread.start()
    count = int(database.is_sqlite)
    while thread.is_alive() and not count:
        with database.read() as session:
            count = session.connection().execute(WAITING).scalar_one()
