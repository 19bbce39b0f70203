"""renders can be hidden on the page of an adapter, and deleted with undo; imported covers are kept

Revision: 0027, after 0026.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

FLAGS = ("hidden", "was_cover")


def upgrade() -> None:
    op.add_column("render", sa.Column("deleted_at", sa.DateTime(), nullable=True))
    op.add_column("adapter", sa.Column("imported_cover_sha256", sa.String(64), nullable=True))
    for flag in FLAGS:
        column = sa.Column(flag, sa.Boolean(), nullable=False, server_default=sa.false())
        op.add_column("render_adapter", column)
        if op.get_bind().dialect.name != "sqlite":
            op.alter_column("render_adapter", flag, server_default=None)


def downgrade() -> None:
    for flag in FLAGS:
        op.drop_column("render_adapter", flag)
    op.drop_column("adapter", "imported_cover_sha256")
    op.drop_column("render", "deleted_at")
