"""versions keep their samples when their run is deleted

Revision: 0047, after 0046.
"""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

OWNED = ("version_id", "step", "prompt_index")


def upgrade() -> None:
    with op.batch_alter_table("sample") as batch:
        batch.alter_column("run_id", existing_type=sa.Integer(), nullable=True)
        batch.add_column(sa.Column("version_id", sa.Integer(), nullable=True))
        name = op.f("fk_sample_version_id_adapter_version")
        batch.create_foreign_key(name, "adapter_version", ["version_id"], ["id"])
        batch.create_unique_constraint(op.f("uq_sample_version_id_step_prompt_index"), OWNED)


def downgrade() -> None:
    op.execute("DELETE FROM sample WHERE run_id IS NULL")
    with op.batch_alter_table("sample") as batch:
        batch.drop_constraint(op.f("uq_sample_version_id_step_prompt_index"), type_="unique")
        batch.drop_constraint(op.f("fk_sample_version_id_adapter_version"), type_="foreignkey")
        batch.drop_column("version_id")
        batch.alter_column("run_id", existing_type=sa.Integer(), nullable=False)
