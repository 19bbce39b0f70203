"""base models can be downloaded from the Hub

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATUS = "ck_base_model_status"
BEFORE = "status IN ('checking', 'ready', 'failed')"
NOW = "status IN ('downloading', 'checking', 'ready', 'failed')"


def upgrade() -> None:
    with op.batch_alter_table("base_model", schema=None) as batch_op:
        batch_op.add_column(sa.Column("local_path", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("revision", sa.String(length=64), nullable=True))
        batch_op.drop_constraint(batch_op.f(STATUS), type_="check")
        batch_op.create_check_constraint(batch_op.f(STATUS), NOW)


def downgrade() -> None:
    op.execute("UPDATE base_model SET status = 'failed' WHERE status = 'downloading'")
    with op.batch_alter_table("base_model", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(STATUS), type_="check")
        batch_op.create_check_constraint(batch_op.f(STATUS), BEFORE)
        batch_op.drop_column("revision")
        batch_op.drop_column("local_path")
