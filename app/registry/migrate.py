"""Migrates the database to the tables of this version."""

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

MIGRATION_LOCK = 0x6272757368  # key of PostgreSQL's advisory lock for migrations


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration for this connection; no file is needed."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The database revision that this version needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def is_known(revision: str) -> bool:
    """True if this version has the migration to this revision; False for those of newer ones."""
    scripts = ScriptDirectory.from_config(alembic_config())
    return revision in {script.revision for script in scripts.walk_revisions()}


def current_revision(engine: Engine) -> str | None:
    """The revision of the database; None if it is empty."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_current(engine: Engine) -> bool:
    """True if the database has the tables of this version."""
    return current_revision(engine) == head_revision()


def upgrade(engine: Engine) -> None:
    """Migrate to the newest revision; concurrent calls wait for each other."""
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
    """Turn SQLite's foreign keys off during a migration, and check them at the end.

    SQLite changes a table by recreating it, which references to it would prevent. The switch only
    works outside of a transaction.
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
            raise RuntimeError(f"After the migration, rows refer to missing rows: {broken}")
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def make_revision(engine: Engine, message: str) -> None:
    """Write a migration for the difference between the code's tables and the database."""
    with engine.connect() as connection:
        command.revision(alembic_config(connection), message=message, autogenerate=True)


def check(engine: Engine) -> None:
    """Raise if the code's tables differ from the migrated database."""
    with engine.connect() as connection:
        command.check(alembic_config(connection))
