"""sweeps, and the runs of each

Revision: 0056, after 0055.
"""

import sqlalchemy as sa
from alembic import op

revision = "0056"
down_revision = "0055"
branch_labels = None
depends_on = None

STATUSES = "'queued', 'paused', 'running', 'succeeded', 'failed', 'canceled'"
OF_RUNS = ("sweep_id", "sweep_place", "pause_at")


def upgrade() -> None:
    op.create_table(
        "sweep",
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=120), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
        sa.CheckConstraint(f"status IN ({STATUSES})", name=op.f("ck_sweep_status")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_sweep_status"), "sweep", ["status"])
    for name in OF_RUNS:
        op.add_column("run", sa.Column(name, sa.Integer(), nullable=True))
    op.create_index(op.f("ix_run_sweep_id"), "run", ["sweep_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_run_sweep_id"), "run")
    for name in OF_RUNS:
        op.drop_column("run", name)
    op.drop_table("sweep")
