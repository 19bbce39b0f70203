"""a base model that something was made with can be removed

Revision: 0015, after 0014.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATUS = "ck_base_model_status"
BEFORE = "status IN ('downloading', 'checking', 'ready', 'failed')"
NOW = "status IN ('downloading', 'checking', 'ready', 'failed', 'removed')"


def upgrade() -> None:
    with op.batch_alter_table("base_model", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(STATUS), type_="check")
        batch_op.create_check_constraint(batch_op.f(STATUS), NOW)


def downgrade() -> None:
    op.execute("UPDATE base_model SET status = 'failed' WHERE status = 'removed'")
    with op.batch_alter_table("base_model", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(STATUS), type_="check")
        batch_op.create_check_constraint(batch_op.f(STATUS), BEFORE)
