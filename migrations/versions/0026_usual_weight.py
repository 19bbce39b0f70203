"""a version has a usual weight, which a person can set

Revision: 0026, after 0025.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "adapter_version",
        sa.Column("usual_weight", sa.Float(), nullable=False, server_default=sa.text("1")),
    )
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("adapter_version", "usual_weight", server_default=None)


def downgrade() -> None:
    op.drop_column("adapter_version", "usual_weight")
