"""the disk that people use, and what it is counted from

Revision: 0063, after 0062.
"""

import sqlalchemy as sa
from alembic import op

revision = "0063"
down_revision = "0062"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_account", sa.Column("disk_used", sa.BigInteger()))
    op.add_column("user_account", sa.Column("disk_counted_at", sa.DateTime(timezone=True)))
    op.add_column("blob_check", sa.Column("size_bytes", sa.BigInteger()))
    op.add_column(
        "dataset_version",
        sa.Column("outlives_images", sa.Boolean(), server_default=sa.true(), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("dataset_version", "outlives_images")
    op.drop_column("blob_check", "size_bytes")
    op.drop_column("user_account", "disk_counted_at")
    op.drop_column("user_account", "disk_used")
