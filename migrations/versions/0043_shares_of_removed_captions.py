"""a caption that was removed comes back with its share

Revision: 0043, after 0042. Captions that were removed before come back with a share of 1, as they
did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("caption_revision", sa.Column("removed_share", sa.Integer(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("caption_revision") as batch_op:
        batch_op.drop_column("removed_share")
