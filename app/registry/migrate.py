"""Brings the database to the tables this version needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from app.registry.adapters.library import search
from app.registry.paths import MIGRATIONS

MIGRATION_LOCK = 0x6272757368  # one PostgreSQL advisory lock for all who migrate


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration, without a file: the connection is handed over."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The revision this version of the program needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def current_revision(engine: Engine) -> str | None:
    """The revision the database has; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: Engine) -> bool:
    """True when the database has exactly the tables this version needs."""
    return current_revision(engine) == head_revision()


def upgrade(engine: Engine) -> None:
    """Migrate to the newest revision; one at a time, whoever calls."""
    with engine.connect() as connection, _loose_references(connection):
        if engine.dialect.name == "postgresql":
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
            )
        command.upgrade(alembic_config(connection), "head")
        search.index_missing(connection)
        connection.commit()


@contextmanager
def _loose_references(connection: sa.Connection) -> Iterator[None]:
    """SQLite changes a table by making it again, which rows that refer to it must not prevent.

    They are checked at the end instead. The switch only works outside of a transaction.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
        broken = driver.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"After the migration, rows refer to others that are gone: {broken}")
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def make_revision(engine: Engine, message: str) -> None:
    """Write a new migration from the difference between tables and database."""
    with engine.connect() as connection:
        command.revision(alembic_config(connection), message=message, autogenerate=True)


def check(engine: Engine) -> None:
    """Raise when the tables in the code differ from what the migrations make."""
    with engine.connect() as connection:
        command.check(alembic_config(connection))
