"""looks of images and adapters, sketches of weights

Revision: 0054, after 0053.
"""

import sqlalchemy as sa
from alembic import op

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_look",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("look_version", sa.Integer(), nullable=False),
        sa.Column("look", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_image_look")),
    )
    op.create_table(
        "adapter_look",
        sa.Column("adapter_id", sa.Integer(), nullable=False),
        sa.Column("look_version", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("cover_sha256", sa.String(length=64), nullable=True),
        sa.Column("basis", sa.String(length=8), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("look", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapter.id"], name=op.f("fk_adapter_look_adapter_id_adapter")
        ),
        sa.PrimaryKeyConstraint("adapter_id", name=op.f("pk_adapter_look")),
    )
    op.add_column("adapter_version", sa.Column("weight_sketch", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("adapter_version", "weight_sketch")
    op.drop_table("adapter_look")
    op.drop_table("image_look")
