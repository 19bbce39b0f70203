"""grids of renders and their cells

Revision: 0035, after 0034.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "grid",
        sa.Column("id", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("title", sa.String(120), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("axes", sa.JSON(), nullable=False),
        sa.Column("winner", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "grid_cell",
        sa.Column(
            "grid_id", sa.Integer(), sa.ForeignKey("grid.id"), primary_key=True, nullable=False
        ),
        sa.Column("place", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("render_id", sa.Integer(), sa.ForeignKey("render.id"), nullable=True),
        sa.Column("image_index", sa.Integer(), nullable=False),
        sa.Column("cache_key", sa.String(64), nullable=False),
    )
    op.create_index("ix_grid_cell_render_id", "grid_cell", ["render_id"])
    op.create_index("ix_grid_cell_cache_key", "grid_cell", ["cache_key"])


def downgrade() -> None:
    op.drop_table("grid_cell")
    op.drop_table("grid")
