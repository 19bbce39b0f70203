"""adapters of a run's checkpoints are versions of an unlisted adapter; a person keeps some

Revision: 0025, after 0024.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

LISTED = sa.text("deleted_at IS NULL AND run_id IS NULL")
LIVE = sa.text("deleted_at IS NULL")
OF_A_RUN = sa.text("run_id IS NOT NULL")
FIRST = ((), ("base_family",), ("starred",))
ORDERS = ("updated_at", "sort_name")
KEPT = ("adapter_version", "checkpoint")


def upgrade() -> None:
    op.add_column("adapter", sa.Column("run_id", sa.Integer(), nullable=True))
    op.create_index(
        "ix_adapter_run_id",
        "adapter",
        ["run_id"],
        unique=True,
        sqlite_where=OF_A_RUN,
        postgresql_where=OF_A_RUN,
    )
    _index_lists(LISTED)
    for table in KEPT:
        op.add_column(
            table, sa.Column("kept", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        if op.get_bind().dialect.name != "sqlite":
            op.alter_column(table, "kept", server_default=None)


def _index_lists(condition: sa.TextClause) -> None:
    for first in FIRST:
        for order in ORDERS:
            name = "_".join(("ix_adapter_live", *first, order))
            op.drop_index(name, "adapter")
            columns = [*first, order, "id"]
            op.create_index(
                name, "adapter", columns, sqlite_where=condition, postgresql_where=condition
            )


def downgrade() -> None:
    for table in KEPT:
        op.drop_column(table, "kept")
    _index_lists(LIVE)
    op.drop_index("ix_adapter_run_id", "adapter")
    op.drop_column("adapter", "run_id")
