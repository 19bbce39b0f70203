"""a picture says which layer of the text encoder was read

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("render", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("clip_skip", sa.Integer(), nullable=False, server_default=sa.text("1"))
        )
    with op.batch_alter_table("render", schema=None) as batch_op:
        batch_op.alter_column("clip_skip", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("render", schema=None) as batch_op:
        batch_op.drop_column("clip_skip")
