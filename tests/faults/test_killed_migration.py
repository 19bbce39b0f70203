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

from app.cli.migrate import migrate as migrate_all
from app.registry import migrate
from app.registry.adapters.library import search
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.paths import MIGRATIONS, ROOT
from tests.conftest import POSTGRES, close_file, empty_database
from tests.next_revision import NEXT, add_next, use_migrations
from tests.table_rows import Rows, assert_kept, fill_tables, read_rows

KILLS = 8
KILLS_OF_THE_FIRST = 3
Copy = Callable[[], contextlib.AbstractContextManager[Settings]]


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Rows, Copy]]:
    """Rows of every table, and a function that gives a database of today with them."""
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
    """Make a database of today with rows in every table; these rows."""
    engine = make_engine(settings.sqlalchemy_url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        fill_tables(connection)
        rows = read_rows(connection)
    if engine.dialect.name == "sqlite":
        close_file(engine)
    else:
        engine.dispose()
    return rows


@pytest.fixture
def migrations(tmp_path: Path) -> Iterator[Path]:
    """The migrations of the next version, which this process has as well."""
    folder = add_next(tmp_path)
    with use_migrations(folder):
        yield folder


def run_migration(
    settings: Settings, migrations: Path, last: int = 0
) -> subprocess.CompletedProcess[str]:
    """Migrate in a process that kills itself before statement `last`, if it is not 0."""
    arguments = [settings.database_url or "", *map(str, (settings.data_dir, migrations, last))]
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.dying_migration", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_next_migration_repairs_what_a_killed_one_left(
    old_database: tuple[Rows, Copy], migrations: Path
) -> None:
    rows, copy = old_database
    with copy() as settings:
        whole = run_migration(settings, migrations)
        assert whole.returncode == 0, whole.stderr
        assert_whole(settings, rows)
    statements = int(whole.stdout)
    for kill in range(1, KILLS + 1):
        last = statements * kill // KILLS  # the last one is after the last migration
        with copy() as settings:
            assert run_migration(settings, migrations, last).returncode == -signal.SIGKILL
            migrate_all(settings)
            assert_whole(settings, rows)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_first_start_that_was_killed_is_repeated(kind: str, tmp_path: Path) -> None:
    statements = 0
    for kill in range(KILLS_OF_THE_FIRST + 1):  # 0: a whole one, which counts its statements
        with empty_settings(kind, tmp_path / str(kill)) as settings:
            done = run_migration(settings, MIGRATIONS, statements * kill // KILLS_OF_THE_FIRST)
            assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
            statements = statements or int(done.stdout)
            migrate_all(settings)
            engine = make_engine(settings.sqlalchemy_url)
            migrate.check(engine)
            engine.dispose()


@contextlib.contextmanager
def empty_settings(kind: str, folder: Path) -> Iterator[Settings]:
    """Settings with an empty database of this kind."""
    if kind == "sqlite":
        yield Settings(_env_file=None, data_dir=folder)
        return
    with empty_database("brushwork_faults") as url:
        yield Settings(_env_file=None, data_dir=folder, database_url=url)


def assert_whole(settings: Settings, rows: Rows) -> None:
    """The database has every row, the newest tables, and a search that finds."""
    database = Database(make_engine(settings.sqlalchemy_url))
    assert migrate.current_revision(database.engine) == NEXT
    with database.engine.connect() as connection:
        assert_kept(rows, read_rows(connection))
        for column in ("run.made_up", "made_up.id"):
            table = column.partition(".")[0]
            made = connection.execute(sa.text(f"SELECT {column} FROM {table}")).all()
            assert len(made) == 2
        if database.is_sqlite:
            check = connection.execute(sa.text("PRAGMA integrity_check")).scalars().all()
            assert list(check) == ["ok"]
    with database.read() as session:
        found = search.candidates(session, search.needles("agais SEA"), most=9)
        assert sorted(found) == [1, 2]
    database.dispose()
