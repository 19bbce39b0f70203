"""rows can be deleted for good: no id is given twice, hashes of what was deleted lately

Revision: 0024, after 0023.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TABLES = ("dataset", "dataset_version", "image", "io_job", "render", "run")


def upgrade() -> None:
    op.create_table(
        "erased_hash",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erased_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_erased_hash_at"), "erased_hash", ["at"])
    op.create_index(op.f("ix_erased_hash_sha256"), "erased_hash", ["sha256"])
    op.add_column(
        "adapter",
        sa.Column("last_version", sa.Integer(), nullable=False, server_default=sa.text("0")),
    )
    op.execute(  # /datasets/deleted is a page now
        sa.text("UPDATE dataset SET slug = 'deleted-dataset-' || id WHERE slug = 'deleted'")
    )
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("adapter", "last_version", server_default=None)
        return  # PostgreSQL's sequences never go back
    for table in TABLES:
        keywords = {"sqlite_autoincrement": True}
        with op.batch_alter_table(table, recreate="always", table_kwargs=keywords):
            pass


def downgrade() -> None:
    op.drop_column("adapter", "last_version")
    op.drop_index(op.f("ix_erased_hash_sha256"), "erased_hash")
    op.drop_index(op.f("ix_erased_hash_at"), "erased_hash")
    op.drop_table("erased_hash")
