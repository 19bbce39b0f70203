"""adapters can be deleted for good: deleted ones are found by an index, and no id is given twice

Revision: 0014, after 0013.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.execute(  # /adapters/deleted is a page now
        sa.text("UPDATE adapter SET slug = 'deleted-adapter-' || id WHERE slug = 'deleted'")
    )
    _count_ids_on()
    op.create_index(
        op.f("ix_adapter_deleted"),
        "adapter",
        ["deleted_at", "id"],
        sqlite_where=DELETED,
        postgresql_where=DELETED,
    )


def _count_ids_on() -> None:
    """On SQLite, AUTOINCREMENT for both tables; PostgreSQL's sequences never go back."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in ("adapter", "adapter_version"):
        keywords = {"sqlite_autoincrement": True}
        with op.batch_alter_table(table, recreate="always", table_kwargs=keywords):
            pass


def downgrade() -> None:
    """Ids go on being given once, which no earlier version minds."""
    op.drop_index(op.f("ix_adapter_deleted"), "adapter")
