"""settings of a run that change while it trains

Revision: 0055, after 0054.
"""

import sqlalchemy as sa
from alembic import op

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("changes", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("run", sa.Column("change_requested", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "change_requested")
    op.drop_column("run", "changes")
