"""a download knows what it says of its adapter; its orders are found by an index

Revision: 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapter_file", sa.Column("facts_sha256", sa.String(64), nullable=True))
    op.create_index(op.f("ix_io_job_kind_subject_id"), "io_job", ["kind", "subject_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_io_job_kind_subject_id"), "io_job")
    with op.batch_alter_table("adapter_file", schema=None) as batch_op:
        batch_op.drop_column("facts_sha256")
