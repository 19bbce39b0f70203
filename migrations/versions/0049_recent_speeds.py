"""the last measurements of a training speed, of which the median counts

Revision: 0049, after 0048.
"""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("recent_seconds", sa.JSON(), nullable=False, server_default="[]")
    op.add_column("base_speed", column)


def downgrade() -> None:
    op.drop_column("base_speed", "recent_seconds")
