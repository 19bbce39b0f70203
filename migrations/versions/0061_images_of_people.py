"""who uploaded an image to start from, and indexes to ask who may see an image

Revision: 0061, after 0060.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0061", "0060", None, None

COLUMNS = (
    ("adapter", "cover_sha256"),
    ("adapter", "imported_cover_sha256"),
    ("image", "clean_sha256"),
    ("image", "thumbnail_sha256"),
    ("recipe", "source_sha256"),
    ("sample", "sha256"),
    ("thumbnail", "large_sha256"),
    ("thumbnail", "small_sha256"),
)


def upgrade() -> None:
    op.create_table(
        "source_user",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.Integer(), primary_key=True),
    )
    for table, column in COLUMNS:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    for table, column in COLUMNS:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    op.drop_table("source_user")
