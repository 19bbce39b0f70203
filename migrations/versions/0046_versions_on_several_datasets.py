"""versions of adapters that were trained on a dataset are found by an index

Revision: 0046, after 0045. Those on several datasets have the others in their details, which had to
be read of every version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

COLUMNS = ("dataset_version_id", "on_several_datasets")


def upgrade() -> None:
    op.add_column(
        "adapter_version",
        sa.Column("on_several_datasets", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    versions = sa.table(
        "adapter_version", sa.column("details"), sa.column("on_several_datasets", sa.Boolean())
    )
    named = sa.cast(versions.c.details, sa.Text).contains('"datasets"')
    op.execute(versions.update().where(named).values(on_several_datasets=True))
    for name in COLUMNS:
        op.create_index(op.f(f"ix_adapter_version_{name}"), "adapter_version", [name])


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_index(op.f(f"ix_adapter_version_{name}"), table_name="adapter_version")
    op.drop_column("adapter_version", "on_several_datasets")
