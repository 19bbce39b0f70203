"""A made-up migration on top of the newest one: what the next version of Brushwork brings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.registry import migrate

NEXT = "9000"
# SQLite copies the tables to change these columns
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("adapter", "run"):
        no_reused_ids = {{"sqlite_autoincrement": True}}
        with op.batch_alter_table(table, table_kwargs=no_reused_ids) as batch:
            batch.alter_column("notes", existing_type=sa.Text(), nullable=True)
            batch.add_column(sa.Column("made_up", sa.Integer(), server_default="7"))
    op.create_table("made_up", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("INSERT INTO made_up SELECT id FROM adapter")
"""


def add_next(folder: Path) -> Path:
    """A copy of the migrations in this folder, with one more to the revision NEXT."""
    copy = Path(shutil.copytree(migrate.MIGRATIONS, folder / "migrations"))
    content = MIGRATION.format(revision=NEXT, head=migrate.head_revision())
    (copy / "versions" / f"{NEXT}_made_up.py").write_text(content, encoding="utf-8")
    return copy


@contextmanager
def use_migrations(folder: Path) -> Iterator[None]:
    """Let the code of this process find its migrations in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", folder)
        migrate.head_revision.cache_clear()
        yield
    migrate.head_revision.cache_clear()


@contextmanager
def next_revision(folder: Path) -> Iterator[None]:
    """Let this version have one more migration, to the revision NEXT."""
    with use_migrations(add_next(folder)):
        yield
