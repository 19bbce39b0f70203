"""a download is kept with its proof; one that tells the tags of the captions is a file of its own

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLD = "uq_adapter_file_version_id_format_dtype"
NEW = f"{OLD}_with_tags"


def upgrade() -> None:
    with op.batch_alter_table("adapter_file", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("with_tags", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch_op.add_column(
            sa.Column("proof", sa.JSON(), nullable=False, server_default=sa.text("'{}'"))
        )
    with op.batch_alter_table("adapter_file", schema=None) as batch_op:
        batch_op.alter_column("with_tags", server_default=None)
        batch_op.alter_column("proof", server_default=None)
        batch_op.drop_constraint(batch_op.f(OLD), type_="unique")
        batch_op.create_unique_constraint(
            batch_op.f(NEW), ["version_id", "format", "dtype", "with_tags"]
        )


def downgrade() -> None:
    op.execute(sa.text("DELETE FROM adapter_file WHERE with_tags"))
    with op.batch_alter_table("adapter_file", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(NEW), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(OLD), ["version_id", "format", "dtype"])
        batch_op.drop_column("proof")
        batch_op.drop_column("with_tags")
