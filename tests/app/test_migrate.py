"""The migrations make exactly the tables the code has, on both databases, and can be undone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlmodel import SQLModel, select

import app.registry.tables  # noqa: F401  (fills the metadata)
from app.registry import migrate
from app.registry.adapters.library import search
from app.registry.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.registry.config import Settings
from app.registry.db import Database, make_engine


def test_the_tables_are_those_of_the_code(database: Database) -> None:
    migrate.check(database.engine)


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


OLD_ROWS = (
    "INSERT INTO adapter (slug, name, trigger_words, notes, starred, base_family, created_at, "
    "updated_at) VALUES ('agais', 'Ägäis', '[\"blue\"]', 'Of the sea', false, 'sd1', "
    "'2026-01-01', '2026-01-01')",
    "INSERT INTO adapter_version (adapter_id, version, sha256, size_bytes, rank, alpha, "
    "trigger_words, config, details, created_at) "
    "VALUES (1, 1, 'x', 1, 1, 1, '[]', '{}', '{}', '2026-01-01')",
)


def test_rows_of_the_first_release_are_kept_and_found(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        engine = make_engine(url)
        with engine.connect() as connection:
            command.upgrade(migrate.alembic_config(connection), "0001")
            connection.commit()
        with engine.begin() as connection:
            for row in OLD_ROWS:
                connection.exec_driver_sql(row)
        migrate.upgrade(engine)
        database = Database(engine)
        with database.read() as session:
            assert search.candidates(session, search.needles("agais SEA"), most=9) == [1]
            assert session.get_one(Adapter, 1).sort_name == "agais"
            assert session.get_one(AdapterVersion, 1).adapter_id == 1
            if database.is_sqlite:  # switched on again after the migration
                on = session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar()
                assert on == 1
        database.dispose()


WRITTEN = (
    "INSERT INTO adapter_file (version_id, format, dtype, with_tags, sha256, size_bytes, proof, "
    "created_at) VALUES (1, 'kohya', 'fp16', {}, 'x', 1, '{{\"passed\": true}}', '2026-01-01')"
)


def test_files_that_may_tell_notes_are_written_anew(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        engine = make_engine(url)
        with engine.connect() as connection:
            command.upgrade(migrate.alembic_config(connection), "0001")
            connection.commit()
        with engine.begin() as connection:
            for row in OLD_ROWS:
                connection.exec_driver_sql(row)
        migrate.upgrade(engine)
        with engine.connect() as connection:
            command.downgrade(migrate.alembic_config(connection), "0011")
            connection.commit()
        with engine.begin() as connection:
            for with_tags in ("false", "true"):
                connection.exec_driver_sql(WRITTEN.format(with_tags))
        migrate.upgrade(engine)
        database = Database(engine)
        with database.read() as session:
            files = session.exec(select(AdapterFile)).all()
            assert {file.with_tags: file.proof for file in files} == {
                False: {},
                True: {"passed": True},
            }
        database.dispose()


def test_an_adapter_at_the_address_of_a_page_moves(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        engine = make_engine(url)
        with engine.connect() as connection:
            command.upgrade(migrate.alembic_config(connection), "0001")
            connection.commit()
        with engine.begin() as connection:
            for row in OLD_ROWS:
                connection.exec_driver_sql(row.replace("'agais'", "'deleted'"))
        migrate.upgrade(engine)
        database = Database(engine)
        with database.read() as session:
            assert session.get_one(Adapter, 1).slug == "deleted-adapter-1"
        database.dispose()


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
