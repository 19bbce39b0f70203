"""an index from which the adapters that a person does not see are counted by family

Revision: 0064, after 0063.
"""

from alembic import op

revision, down_revision, branch_labels, depends_on = "0064", "0063", None, None

NAME = "ix_adapter_visibility"
GROUPED = ("base_family", "starred")
COUNTED = ("owner_id", "run_id", "deleted_at", "id")


def upgrade() -> None:
    op.drop_index(op.f(NAME), "adapter")
    op.create_index(op.f(NAME), "adapter", ("visibility", *GROUPED, *COUNTED))


def downgrade() -> None:
    op.drop_index(op.f(NAME), "adapter")
    op.create_index(op.f(NAME), "adapter", ("visibility", "owner_id", "run_id"))
