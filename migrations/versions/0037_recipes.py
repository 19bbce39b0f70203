"""recipes: a stack with its prompt and settings under a name

Revision: 0037, after 0038.
"""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recipe",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(140), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("base_model", sa.String(140), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("negative_prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("sampler", sa.String(32), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("guidance", sa.Float(), nullable=False),
        sa.Column("clip_skip", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("adapters", sa.JSON(), nullable=False),
        sa.Column("mix", sa.String(8), nullable=False),
        sa.Column("cache_key", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipe")),
        sa.UniqueConstraint("slug", name=op.f("uq_recipe_slug")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("recipe")
