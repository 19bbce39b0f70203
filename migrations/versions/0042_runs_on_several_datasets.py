"""a run is trained on several datasets, each with its repeats

Revision: 0042, after 0041. The first dataset stays in the row of the run, so earlier runs stay as
they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "run", sa.Column("dataset_repeats", sa.Integer(), nullable=False, server_default="1")
    )
    op.create_table(
        "run_dataset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("dataset_version_id", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_dataset_run_id_run")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_run_dataset_dataset_id_dataset")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"],
            ["dataset_version.id"],
            name=op.f("fk_run_dataset_dataset_version_id_dataset_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_dataset")),
        sa.UniqueConstraint("run_id", "dataset_id", name=op.f("uq_run_dataset_run_id_dataset_id")),
        sa.UniqueConstraint("run_id", "place", name=op.f("uq_run_dataset_run_id_place")),
    )
    for name in ("run_id", "dataset_id", "dataset_version_id"):
        op.create_index(op.f(f"ix_run_dataset_{name}"), "run_dataset", [name])


def downgrade() -> None:
    op.drop_table("run_dataset")
    op.drop_column("run", "dataset_repeats")
