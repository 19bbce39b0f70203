"""a worker says why it does not use a GPU, and what to do about it

Revision: 0019, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

COLUMNS = ("problem", "remedy")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column(
            "worker", sa.Column(name, sa.String(), nullable=False, server_default=sa.text("''"))
        )
    with op.batch_alter_table("worker", schema=None) as batch_op:
        for name in COLUMNS:
            batch_op.alter_column(name, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("worker", schema=None) as batch_op:
        for name in COLUMNS:
            batch_op.drop_column(name)
