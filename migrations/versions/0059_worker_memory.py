"""the memory of a worker's GPU

Revision: 0059, after 0058.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0059", "0058", None, None


def upgrade() -> None:
    op.add_column("worker", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "memory_bytes")
