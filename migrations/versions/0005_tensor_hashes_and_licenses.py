"""the same tensors are known again, adapters have a license, versions say what code made them

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("licence", sa.String(length=80), nullable=False, server_default=sa.text("''"))
        )
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.alter_column("licence", server_default=None)
    with op.batch_alter_table("adapter_version", schema=None) as batch_op:
        batch_op.add_column(sa.Column("tensor_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("code_version", sa.String(length=80), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_adapter_version_tensor_sha256"), ["tensor_sha256"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("adapter_version", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_adapter_version_tensor_sha256"))
        batch_op.drop_column("code_version")
        batch_op.drop_column("tensor_sha256")
    with op.batch_alter_table("adapter", schema=None) as batch_op:
        batch_op.drop_column("licence")
