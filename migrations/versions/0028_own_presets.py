"""presets of one's own; a run remembers the one it was started with

Revision: 0028, after 0027.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "own_preset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("name_key", sa.String(length=400), nullable=False),
        sa.Column("preset", sa.String(length=20), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("base_family", sa.String(length=20), nullable=True),
        sa.Column("resolution", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_own_preset")),
        sa.UniqueConstraint("name_key", name=op.f("uq_own_preset_name_key")),
        sqlite_autoincrement=True,
    )
    op.add_column("run", sa.Column("own_preset", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "own_preset")
    op.drop_table("own_preset")
