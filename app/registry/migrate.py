"""Migrates the database to the tables of this version."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlmodel import SQLModel

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.registry.adapters.library import search
from app.registry.db import allow_idling
from app.registry.errors import OutdatedDatabase, UnusableDatabase
from app.registry.paths import MIGRATIONS

VERSION_TABLE = "alembic_version"
NOT_A_DATABASE = {"SQLITE_NOTADB", "SQLITE_CORRUPT"}
OWN_REVISION = re.compile(r"\d{4}")
LAST_COMMIT = "1df9e16"
"""The last commit with the migrations to the first revision of this version."""

MIGRATION_LOCK = 0x6272757368  # key of PostgreSQL's advisory lock for migrations


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration for this connection; no file is needed."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@functools.cache
def head_revision() -> str:
    """The database revision that this version needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None
    return head


def first_revision() -> str:
    """The oldest revision that this version can migrate."""
    first = ScriptDirectory.from_config(alembic_config()).get_base()
    assert first is not None
    return first


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


def require_current(engine: Engine) -> None:
    """Raise UnusableDatabase unless the database has the tables of this version."""
    found = usable_revision(engine)
    if found is None:
        raise UnusableDatabase("The database has no tables yet. Run `brushwork migrate` first.")
    if found != head_revision():
        raise UnusableDatabase(
            f"The database belongs to another version: it has revision {found}, and this version "
            f"needs {head_revision()}. Run `brushwork migrate` first."
        )


def usable_revision(engine: Engine) -> str | None:
    """The revision of a database that this version can migrate; None if it is empty.

    A SQLite file is not changed, not even its journal mode. Raises OutdatedDatabase if the database
    is older than the first migration, UnusableDatabase if it is of a newer version, of another
    program, or no database.
    """
    place: str | None = "The database"
    if engine.dialect.name == "sqlite":
        place = engine.url.database
        if not place or not Path(place).exists():
            return None
        engine = sa.create_engine(engine.url, hide_parameters=True, poolclass=sa.NullPool)
    try:
        found = current_revision(engine)
        is_foreign = found is None and _has_foreign_tables(engine)
    except sa.exc.DBAPIError as error:
        if _names_no_database(error):
            raise UnusableDatabase(
                f"{place} is not an SQLite database, or it is damaged. Restore a backup, or use "
                "another folder with --data-dir. Nothing was changed."
            ) from error
        raise
    if found not in (None, head_revision()) and not is_known(found):
        is_foreign = True
        if OWN_REVISION.fullmatch(found):
            _refuse_other_versions(found)
    if is_foreign:
        raise UnusableDatabase(
            f"{place} belongs to another program. Use another database, or another folder with "
            "--data-dir. Nothing was changed."
        )
    return found


def _refuse_other_versions(found: str) -> None:
    """Raise UnusableDatabase for a revision before the first or after the newest one."""
    first, head = first_revision(), head_revision()
    if found < first:
        raise OutdatedDatabase(
            f"The database is of an older Brushwork: it has revision {found}, and this version "
            f"begins at {first}. Check out commit {LAST_COMMIT}, the last one that can upgrade it, "
            "and run `brushwork migrate` there once. Then come back to this version. "
            "Nothing was changed."
        )
    if found > head:
        raise UnusableDatabase(
            f"The database is of a newer Brushwork: it has revision {found}, and this version "
            f"ends at {head}. Update Brushwork, or use another --data-dir. "
            "Nothing was changed."
        )


def _has_foreign_tables(engine: Engine) -> bool:
    """True if a database without a revision has tables: on a server, of the same names as ours."""
    found = set(sa.inspect(engine).get_table_names()) - {VERSION_TABLE}
    if engine.dialect.name != "sqlite":
        found &= set(SQLModel.metadata.tables)
    return bool(found)


def _names_no_database(error: BaseException | None) -> bool:
    """True if SQLite says that the file is none of its databases."""
    while error is not None:
        if getattr(error, "sqlite_errorname", None) in NOT_A_DATABASE:
            return True
        error = getattr(error, "orig", None) or error.__cause__
    return False


def upgrade(engine: Engine) -> None:
    """Migrate to the newest revision; concurrent calls wait for each other."""
    with engine.connect() as connection, _loose_references(connection):
        if engine.dialect.name == "postgresql":
            allow_idling(connection)
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}
            )
        command.upgrade(alembic_config(connection), "head")
        search.index_missing(connection)
        connection.commit()


def complete_search_index(engine: Engine) -> None:
    """Write what is missing in the search index, such as after a crash that followed a migration.

    The database has to be that of this version.
    """
    with engine.connect().execution_options(readonly=True) as connection:
        is_complete = not search.missing_texts(connection)
    if not is_complete:
        with engine.begin() as connection:
            search.index_missing(connection)


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


def check(engine: Engine) -> None:
    """Raise if the code's tables differ from the migrated database."""
    with engine.connect() as connection:
        command.check(alembic_config(connection))
