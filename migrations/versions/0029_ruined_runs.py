"""runs and versions say whether the training was ruined

Revision: 0029, after 0028.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

OF_RUNS = ("outcome", "outcome_reason", "good_steps", "loss_rise")


def upgrade() -> None:
    op.add_column("run", sa.Column("outcome", sa.String(length=20), nullable=True))
    op.add_column("run", sa.Column("outcome_reason", sa.String(), nullable=True))
    op.add_column("run", sa.Column("good_steps", sa.JSON(), nullable=True))
    op.add_column("run", sa.Column("loss_rise", sa.Float(), nullable=True))
    op.add_column("adapter_version", sa.Column("ruined", sa.String(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("adapter_version", schema=None) as batch_op:
        batch_op.drop_column("ruined")
    with op.batch_alter_table("run", schema=None) as batch_op:
        for name in OF_RUNS:
            batch_op.drop_column(name)
