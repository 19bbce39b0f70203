"""recipes keep the image that they start from

Revision: 0040, after 0039.
"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("recipe", sa.Column("source_sha256", sa.String(64), nullable=True))
    op.add_column("recipe", sa.Column("strength", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("recipe", "strength")
    op.drop_column("recipe", "source_sha256")
