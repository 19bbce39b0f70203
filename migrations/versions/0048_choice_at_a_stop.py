"""a run that is stopped remembers whether its result becomes the version in use

Revision: 0048, after 0047.
"""

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("make_latest", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "make_latest")
