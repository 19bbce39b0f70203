"""A migration is killed before any of its statements; the next start repairs what it left."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from app.cli.migrate import migrate as migrate_all
from app.registry import migrate
from app.registry.adapters.library import search
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.paths import ROOT
from tests.conftest import POSTGRES, empty_database
from tests.old_rows import Rows, assert_kept, fill_tables, read_rows

KILLS = 8
Copy = Callable[[], contextlib.AbstractContextManager[Settings]]


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Rows, Copy]]:
    """Rows of the first release, and a function that gives a database with them."""
    if request.param == "sqlite":
        settings = Settings(_env_file=None, data_dir=tmp_path / "old")
        rows = make_old(settings)

        @contextlib.contextmanager
        def copy() -> Iterator[Settings]:
            folder = tmp_path / uuid.uuid4().hex
            folder.mkdir()
            (folder / "brushwork.db").write_bytes((tmp_path / "old/brushwork.db").read_bytes())
            yield Settings(_env_file=None, data_dir=folder)

        yield rows, copy
        return
    with empty_database("brushwork_faults") as url:
        rows = make_old(Settings(_env_file=None, data_dir=tmp_path, database_url=url))
        place, _, original = url.rpartition("/")

        @contextlib.contextmanager
        def copy() -> Iterator[Settings]:
            name = f"{original}_{uuid.uuid4().hex[:8]}"
            with psycopg.connect(POSTGRES, autocommit=True) as server:
                server.execute(f"CREATE DATABASE {name} TEMPLATE {original}")
                try:
                    yield Settings(
                        _env_file=None, data_dir=tmp_path, database_url=f"{place}/{name}"
                    )
                finally:
                    server.execute(f"DROP DATABASE {name} WITH (FORCE)")

        yield rows, copy


def make_old(settings: Settings) -> Rows:
    """Make a database as the first release left it; its rows."""
    engine = make_engine(settings.sqlalchemy_url)
    with engine.connect() as connection:
        command.upgrade(migrate.alembic_config(connection), "0001")
        fill_tables(connection)
        rows = read_rows(connection)
        connection.commit()
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
    engine.dispose()
    return rows


def run_migration(settings: Settings, last: int = 0) -> subprocess.CompletedProcess[str]:
    """Migrate in a process that kills itself before statement `last`, if it is not 0."""
    arguments = [settings.database_url or "", str(settings.data_dir), str(last)]
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.dying_migration", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_next_migration_repairs_what_a_killed_one_left(
    old_database: tuple[Rows, Copy],
) -> None:
    rows, copy = old_database
    with copy() as settings:
        whole = run_migration(settings)
        assert whole.returncode == 0, whole.stderr
        assert_whole(settings, rows)
    statements = int(whole.stdout)
    for kill in range(1, KILLS + 1):
        last = statements * kill // KILLS  # the last one is after the last migration
        with copy() as settings:
            assert run_migration(settings, last).returncode == -signal.SIGKILL
            migrate_all(settings)
            assert_whole(settings, rows)


def assert_whole(settings: Settings, rows: Rows) -> None:
    """The database has every row, the newest tables, and a search that finds."""
    database = Database(make_engine(settings.sqlalchemy_url))
    migrate.check(database.engine)
    with database.engine.connect() as connection:
        assert_kept(rows, read_rows(connection))
        if database.is_sqlite:
            check = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
            assert list(check) == ["ok"]
    with database.read() as session:
        assert search.candidates(session, search.needles("agais SEA"), most=9) == [1, 2]
    database.dispose()
