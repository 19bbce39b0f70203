"""renders can start from an image

Revision: 0038, after 0035.
"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("render", sa.Column("source_sha256", sa.String(64), nullable=True))
    op.add_column("render", sa.Column("strength", sa.Float(), nullable=True))
    op.create_index(op.f("ix_render_source_sha256"), "render", ["source_sha256"])
    op.create_table(
        "render_source",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_render_source")),
    )
    op.create_index(op.f("ix_render_source_used_at"), "render_source", ["used_at"])


def downgrade() -> None:
    op.drop_table("render_source")
    op.drop_index(op.f("ix_render_source_sha256"), "render")
    op.drop_column("render", "strength")
    op.drop_column("render", "source_sha256")
