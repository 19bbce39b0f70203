"""a measured speed says which layers were trained, for only then it knows how much that is

Revision: 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KINDS = ["base_model_id", "batch_size", "resolution", "rank"]
OLD = "uq_base_speed_base_model_id_batch_size_resolution_rank"
NEW = f"{OLD}_layers"


def upgrade() -> None:
    with op.batch_alter_table("base_speed", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("layers", sa.String(length=255), nullable=False, server_default=sa.text("''"))
        )
        batch_op.drop_constraint(batch_op.f(OLD), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(NEW), [*KINDS, "layers"])
    with op.batch_alter_table("base_speed", schema=None) as batch_op:
        batch_op.alter_column("layers", server_default=None)


def downgrade() -> None:
    op.execute("DELETE FROM base_speed")  # measured again by the next worker
    with op.batch_alter_table("base_speed", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(NEW), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(OLD), KINDS)
        batch_op.drop_column("layers")
