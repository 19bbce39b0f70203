"""stored files are checked; what is damaged or missing is kept

Revision: 0020, after 0019.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

INDEXED = ("checked_at", "problem")


def upgrade() -> None:
    op.create_table(
        "blob_check",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("problem", sa.String(16), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob_check")),
    )
    for name in INDEXED:
        op.create_index(f"ix_blob_check_{name}", "blob_check", [name])


def downgrade() -> None:
    for name in INDEXED:
        op.drop_index(f"ix_blob_check_{name}", table_name="blob_check")
    op.drop_table("blob_check")
