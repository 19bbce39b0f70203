"""a job says what it waits for, such as a storage that does not answer

Revision: 0023, after 0022.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLES = ("run", "render", "io_job")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("waits_for", sa.String(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("waits_for")
