"""the precision of images, chosen once for each base model and machine

Revision: 0018, after 0016.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "base_precision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_model_id", sa.Integer(), nullable=False),
        sa.Column("machine", sa.String(length=40), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("precision", sa.String(length=8), nullable=False),
        sa.Column("processor", sa.String(length=80), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("fp32_seconds", sa.Float(), nullable=True),
        sa.Column("bf16_seconds", sa.Float(), nullable=True),
        sa.Column("step_effect", sa.Float(), nullable=True),
        sa.Column("chosen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["base_model_id"],
            ["base_model.id"],
            name=op.f("fk_base_precision_base_model_id_base_model"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_precision")),
        sa.UniqueConstraint(
            "base_model_id", "machine", name=op.f("uq_base_precision_base_model_id_machine")
        ),
    )
    op.create_index(op.f("ix_base_precision_base_model_id"), "base_precision", ["base_model_id"])
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("machine", sa.String(length=40), nullable=False, server_default=sa.text("''"))
        )
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.alter_column("machine", server_default=None)
    with op.batch_alter_table("render", schema=None) as batch_op:
        batch_op.add_column(sa.Column("precision", sa.String(length=8), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("render", schema=None) as batch_op:
        batch_op.drop_column("precision")
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.drop_column("machine")
    op.drop_index(op.f("ix_base_precision_base_model_id"), table_name="base_precision")
    op.drop_table("base_precision")
