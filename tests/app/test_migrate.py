"""The migrations make exactly the tables the code has, on both databases, and can be undone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlmodel import SQLModel, select, update

import app.registry.tables  # noqa: F401  (fills the metadata)
from app.registry import migrate
from app.registry.adapters.library import search
from app.registry.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.registry.adapters.versions.trained_on import trained_on
from app.registry.base_models.models import BaseModel
from app.registry.config import Settings
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.db import Database, make_engine
from app.registry.renders.models import Render, RenderAdapter
from app.registry.renders.search import text_of as render_text
from app.registry.runs import search as runs_search
from app.registry.runs.models import Run
from tests.app.adapters.test_trained_on import add_versions
from tests.old_rows import assert_kept, fill_tables, read_rows


def test_the_tables_are_those_of_the_code(database: Database) -> None:
    migrate.check(database.engine)


def test_sqlite_gives_no_id_twice_where_the_code_needs_it(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/brushwork.db")
    migrate.upgrade(engine)
    assert _never_twice(engine) == NEVER_TWICE_TABLES
    with engine.connect() as connection:
        command.downgrade(migrate.alembic_config(connection), "0041")
        connection.commit()
    migrate.upgrade(engine)
    assert _never_twice(engine) == NEVER_TWICE_TABLES
    engine.dispose()


NEVER_TWICE_TABLES = {
    name
    for name, table in SQLModel.metadata.tables.items()
    if table.dialect_options["sqlite"]["autoincrement"]
}


def _never_twice(engine: sa.Engine) -> set[str]:
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


OLD_ROWS = (
    "INSERT INTO adapter (slug, name, trigger_words, notes, starred, base_family, created_at, "
    "updated_at) VALUES ('agais', 'Ägäis', '[\"blue\"]', 'Of the sea', false, 'sd1', "
    "'2026-01-01', '2026-01-01')",
    "INSERT INTO adapter_version (adapter_id, version, sha256, size_bytes, rank, alpha, "
    "trigger_words, config, details, created_at) "
    "VALUES (1, 1, 'x', 1, 1, 1, '[]', '{}', '{}', '2026-01-01')",
)


@pytest.mark.slow
def test_every_row_of_the_first_release_is_kept_and_found(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        engine = make_engine(url)
        with engine.connect() as connection:
            command.upgrade(migrate.alembic_config(connection), "0001")
            fill_tables(connection)
            before = read_rows(connection)
            connection.commit()
        assert len(before) == 19
        assert {len(rows) for rows in before.values()} == {2}
        migrate.upgrade(engine)
        with engine.connect() as connection:
            assert_kept(before, read_rows(connection))
        database = Database(engine)
        with database.read() as session:
            for mapper in SQLModel._sa_registry.mappers:  # the code reads every row
                rows = session.exec(select(mapper.class_)).all()
                assert rows or mapper.local_table.name not in before, mapper
            assert search.candidates(session, search.needles("agais SEA"), most=9) == [1, 2]
            assert session.get_one(Adapter, 1).sort_name == "agais"
            assert session.get_one(AdapterVersion, 1).file_tensor_sha256 == "7" * 64
            run = session.get_one(Run, 2)
            assert run.config["regularization_weight"] == 0.25
            assert run.sort_name == "2 e name"
            assert (run.notes, run.search_text) == ("", runs_search.text_of(run))
            for render in session.exec(select(Render)):
                assert (render.starred, render.search_text) == (False, render_text(render))
            pairs = session.exec(select(RenderAdapter.adapter_id, RenderAdapter.render_id)).all()
            assert sorted(pairs) == [(1, 1), (1, 2), (2, 1), (2, 2)]
            if database.is_sqlite:  # switched on again after the migration
                on = session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar()
                assert on == 1
        database.dispose()


WRITTEN = (
    "INSERT INTO adapter_file (version_id, format, dtype, with_tags, sha256, size_bytes, proof, "
    "created_at) VALUES (1, 'kohya', 'fp16', {}, 'x', 1, '{{\"passed\": true}}', '2026-01-01')"
)


@pytest.mark.slow
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


@pytest.mark.slow
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


def add_run(database: Database, config: dict[str, Any]) -> None:
    """A run with regularization images, and its version."""
    with database.write() as session:
        dataset = Dataset(slug="sea", name="Sea")
        base = BaseModel(slug="base", name="Base", source="base")
        session.add_all([dataset, base])
        session.flush()
        pinned = DatasetVersion(dataset_id=dataset.key, fingerprint="x", image_count=1, items=[])
        session.add(pinned)
        session.flush()
        run = Run(
            name="Sea",
            dataset_id=dataset.key,
            dataset_version_id=pinned.key,
            base_model_id=base.key,
            config=config,
            total_steps=3,
            regularization_version_id=pinned.key,
        )
        session.add(run)
        session.exec(update(AdapterVersion).values(config=config))
        session.exec(update(Adapter).values(license="MIT"))


def test_names_are_spelled_in_american_english(postgres: str, tmp_path: Path) -> None:
    config = {"regularization_weight": 0.5, "sample_prompts": ['a "regularization_weight": 1, ü']}
    old = {"regularisation_weight": 0.5, "sample_prompts": config["sample_prompts"]}
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
        add_run(database, config)
        with engine.connect() as connection, migrate._loose_references(connection):
            command.downgrade(migrate.alembic_config(connection), "0015")
            connection.commit()
        with engine.connect() as connection:
            runs = connection.execute(sa.text("SELECT regularisation_version_id, config FROM run"))
            ((pinned, stored),) = runs.all()
            assert pinned == 1
            assert connection.scalar(sa.text("SELECT licence FROM adapter")) == "MIT"
            assert (json.loads(stored) if isinstance(stored, str) else stored) == old
            keys = sa.inspect(connection).get_foreign_keys("run")
            assert "fk_run_regularisation_version_id_dataset_version" in {k["name"] for k in keys}
        migrate.upgrade(engine)
        with database.read() as session:
            run = session.get_one(Run, 1)
            assert (run.regularization_version_id, run.config) == (1, config)
            assert session.get_one(Adapter, 1).license == "MIT"
            assert session.get_one(AdapterVersion, 1).config == config
            assert search.candidates(session, search.needles("agais SEA"), most=9) == [1]
        keys = sa.inspect(engine).get_foreign_keys("run")
        assert "fk_run_regularization_version_id_dataset_version" in {k["name"] for k in keys}
        migrate.check(engine)
        database.dispose()


@pytest.mark.slow
def test_versions_of_before_are_found_as_well(postgres: str, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/brushwork.db", postgres):
        database = Database(make_engine(url))
        migrate.upgrade(database.engine)
        with database.write() as session:
            add_versions(session)
        with database.engine.connect() as connection:
            command.downgrade(migrate.alembic_config(connection), "0045")
            connection.commit()
        migrate.upgrade(database.engine)
        with database.read() as session:
            marked = select(AdapterVersion.version).where(AdapterVersion.on_several_datasets)
            assert session.exec(marked).all() == [3, 4]  # the last one only has the word
            assert [row.version for row in trained_on(session, [2])] == [2, 3]
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
