"""The migrations make exactly the tables the code has, on both databases, and can be undone."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from sqlmodel import SQLModel

import app.tables  # noqa: F401  (fills the metadata)
from app import migrate
from app.db import Database, make_engine


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
