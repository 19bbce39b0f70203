"""how pictures are shown; pictures that regularize a run

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("repeats", sa.Integer(), nullable=False, server_default=sa.text("1"))
        )
        batch_op.add_column(
            sa.Column("never_flip", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.alter_column("repeats", server_default=None)
        batch_op.alter_column("never_flip", server_default=None)
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("regularisation_version_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_run_regularisation_version_id_dataset_version"),
            "dataset_version",
            ["regularisation_version_id"],
            ["id"],
        )


def downgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_run_regularisation_version_id_dataset_version"), type_="foreignkey"
        )
        batch_op.drop_column("regularisation_version_id")
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_column("never_flip")
        batch_op.drop_column("repeats")
