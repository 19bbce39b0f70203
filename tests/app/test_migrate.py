"""The migrations make exactly the tables the code has, on both databases, and can be undone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlmodel import SQLModel, select

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.cli.migrate import migrate as migrate_command
from app.registry import migrate
from app.registry.adapters.library import search
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.errors import OutdatedDatabase
from app.registry.tables.rows import deleted_too
from tests.next_revision import NEXT, next_revision
from tests.table_rows import assert_kept, fill_tables, read_rows


def test_the_tables_are_those_of_the_code(database: Database) -> None:
    migrate.check(database.engine)


def test_sqlite_reuses_no_id_where_the_code_needs_that(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/brushwork.db")
    migrate.upgrade(engine)
    assert _tables_without_reused_ids(engine) == WITHOUT_REUSED_IDS
    engine.dispose()


WITHOUT_REUSED_IDS = {
    name
    for name, table in SQLModel.metadata.tables.items()
    if table.dialect_options["sqlite"]["autoincrement"]
}


def _tables_without_reused_ids(engine: sa.Engine) -> set[str]:
    tables = sa.text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
    with engine.connect() as connection:
        return set(connection.execute(tables).scalars())


@pytest.mark.slow
def test_every_migration_can_be_undone(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/brushwork.db")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        command.downgrade(migrate.alembic_config(connection), "base")
        connection.commit()
        left = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
    assert left == set()
    migrate.upgrade(engine)
    assert set(SQLModel.metadata.tables) <= set(sa.inspect(engine).get_table_names())
    engine.dispose()


def test_a_later_migration_keeps_every_row(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        database = Database(make_engine(url))
        migrate.upgrade(database.engine)
        with database.engine.begin() as connection:
            fill_tables(connection)
            before = read_rows(connection)
        assert len(before) == len(SQLModel.metadata.tables) - len({"adapter_search", "worker"})
        assert {len(rows) for rows in before.values()} == {2}
        with next_revision(tmp_path / database.engine.dialect.name):
            migrate.upgrade(database.engine)
        assert migrate.current_revision(database.engine) == NEXT
        with database.engine.connect() as connection:
            assert_kept(before, read_rows(connection))
            made = connection.execute(sa.text("SELECT made_up FROM run")).scalars().all()
            assert made == [7, 7]
        with database.read() as session, deleted_too(session):
            for mapper in SQLModel._sa_registry.mappers:  # the code reads every row
                rows = session.exec(select(mapper.class_)).all()
                assert rows or mapper.local_table.name not in before, mapper
            found = search.candidates(session, search.needles("agais SEA"), most=9)
            assert sorted(found) == [1, 2]
            if database.is_sqlite:  # switched on again after the migration
                on = session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar()
                assert on == 1
        database.dispose()


def test_a_database_older_than_the_first_migration_is_left_as_it_is(
    postgres: str, tmp_path: Path
) -> None:
    assert migrate.first_revision() == "0046"
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            connection.exec_driver_sql("CREATE TABLE adapter (id INTEGER)")
        for revision in ("0001", "0036", "0045"):
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM alembic_version")
                connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
            settings = Settings(_env_file=None, data_dir=tmp_path, database_url=url)
            with pytest.raises(OutdatedDatabase) as refused:
                migrate_command(settings)
            assert f"it has revision {revision}, and this version begins at 0046" in str(
                refused.value
            )
            assert "Check out commit 1df9e16, the last one that can upgrade it" in str(
                refused.value
            )
            assert migrate.current_revision(engine) == revision
        assert set(sa.inspect(engine).get_table_names()) == {"alembic_version", "adapter"}
        engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["brushwork.db"]


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[str]:
    """An empty database of a role that may do nothing but own it."""
    name = f"brushwork_plain_{uuid.uuid4().hex[:8]}"
    server = sa.make_url(Settings(database_url=postgres_url).sqlalchemy_url)
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN NOSUPERUSER PASSWORD 'x'")
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {name}")
    own = server.set(database=name, username=name, password="x")
    yield own.render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        connection.exec_driver_sql(f"DROP ROLE {name}")
    admin.dispose()
