"""images have thumbnails in two sizes; an io job makes those of older images

Revision: 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "thumbnail",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("small_sha256", sa.String(64), nullable=True),
        sa.Column("large_sha256", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_thumbnail")),
    )


def downgrade() -> None:
    op.drop_table("thumbnail")
