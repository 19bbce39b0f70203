"""adapters are found by parts of words and in any order, their pictures by renders that used them

Revision: 0007, after 0006.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LIVE = sa.text("deleted_at IS NULL")
FIRST = ((), ("base_family",), ("starred",))
ORDERS = ("updated_at", "sort_name")
# SQLite's index of trigrams, kept in step by triggers; its text is that of adapter_search
SQLITE = (
    "CREATE VIRTUAL TABLE adapter_fts USING fts5"
    "(text, content='adapter_search', content_rowid='adapter_id', tokenize='trigram')",
    "CREATE TRIGGER adapter_search_inserted AFTER INSERT ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(rowid, text) VALUES (new.adapter_id, new.text); END",
    "CREATE TRIGGER adapter_search_deleted AFTER DELETE ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(adapter_fts, rowid, text) "
    "VALUES ('delete', old.adapter_id, old.text); END",
    "CREATE TRIGGER adapter_search_updated AFTER UPDATE ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(adapter_fts, rowid, text) "
    "VALUES ('delete', old.adapter_id, old.text); "
    "INSERT INTO adapter_fts(rowid, text) VALUES (new.adapter_id, new.text); END",
)
# PostgreSQL's: hashed trigrams in an array; fastupdate off, so that no search pays for an insert
POSTGRESQL = (
    "ALTER TABLE adapter_search ADD COLUMN grams integer[] NOT NULL DEFAULT '{}'",
    "CREATE INDEX ix_adapter_search_grams ON adapter_search USING gin (grams) "
    "WITH (fastupdate = off)",
)


def upgrade() -> None:
    _finding()
    _orders()
    _renders()
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("adapter_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_run_adapter_id_adapter"), "adapter", ["adapter_id"], ["id"]
        )


def _finding() -> None:
    op.create_table(
        "adapter_search",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id"],
            ["adapter.id"],
            name=op.f("fk_adapter_search_adapter_id_adapter"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("adapter_id", name=op.f("pk_adapter_search")),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE if is_sqlite else POSTGRESQL:
        op.execute(statement)


def _orders() -> None:
    kind = sa.String(length=240)
    kind = kind.with_variant(sa.String(length=240, collation="C"), "postgresql")
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("sort_name", kind, nullable=False, server_default=sa.text("''"))
        )
        batch_op.drop_index(batch_op.f("ix_adapter_base_family"))
        batch_op.drop_index(batch_op.f("ix_adapter_name"))
        batch_op.drop_index(batch_op.f("ix_adapter_updated_at"))
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.alter_column("sort_name", server_default=None)
    for first in FIRST:
        for order in ORDERS:
            op.create_index(
                _name(first, order),
                "adapter",
                [*first, order, "id"],
                unique=False,
                sqlite_where=LIVE,
                postgresql_where=LIVE,
            )


def _name(first: tuple[str, ...], order: str) -> str:
    return "_".join(("ix_adapter_live", *first, order))


def _renders() -> None:
    op.create_table(
        "render_adapter",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("render_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapter.id"], name=op.f("fk_render_adapter_adapter_id_adapter")
        ),
        sa.ForeignKeyConstraint(
            ["render_id"], ["render.id"], name=op.f("fk_render_adapter_render_id_render")
        ),
        sa.PrimaryKeyConstraint("adapter_id", "render_id", name=op.f("pk_render_adapter")),
    )
    op.create_index(op.f("ix_render_adapter_render_id"), "render_adapter", ["render_id"])
    op.create_index(op.f("ix_render_twin_id"), "render", ["twin_id"])
    op.create_index(op.f("ix_render_image_sha256"), "render_image", ["sha256"])
    connection = op.get_bind()
    known = set(connection.execute(sa.text("SELECT id FROM adapter")).scalars())
    used = {
        (entry["adapter_id"], render_id)
        for render_id, stack in connection.execute(sa.text("SELECT id, adapters FROM render"))
        for entry in (json.loads(stack) if isinstance(stack, str) else stack)
        if entry["adapter_id"] in known
    }
    table = sa.table("render_adapter", sa.column("adapter_id"), sa.column("render_id"))
    if used:
        op.bulk_insert(table, [{"adapter_id": one, "render_id": two} for one, two in sorted(used)])


def downgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_run_adapter_id_adapter"), type_="foreignkey")
        batch_op.drop_column("adapter_id")
    op.drop_index(op.f("ix_render_image_sha256"), "render_image")
    op.drop_index(op.f("ix_render_twin_id"), "render")
    op.drop_table("render_adapter")
    for first in FIRST:
        for order in ORDERS:
            op.drop_index(_name(first, order), "adapter")
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.drop_column("sort_name")
        batch_op.create_index(batch_op.f("ix_adapter_base_family"), ["base_family"])
        batch_op.create_index(batch_op.f("ix_adapter_name"), ["name"])
        batch_op.create_index(batch_op.f("ix_adapter_updated_at"), ["updated_at"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE adapter_fts")
    op.drop_table("adapter_search")
