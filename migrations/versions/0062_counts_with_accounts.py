"""indexes of adapters from which a person's are counted without reading rows

Revision: 0062, after 0061.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0062", "0061", None, None

LIVE = sa.text("deleted_at IS NULL AND run_id IS NULL")


COLUMNS = ("visibility", "owner_id", "run_id")


def upgrade() -> None:
    _replace(*COLUMNS)
    op.create_index(op.f("ix_adapter_visibility"), "adapter", COLUMNS)


def downgrade() -> None:
    op.drop_index(op.f("ix_adapter_visibility"), "adapter")
    _replace()


def _replace(*last: str) -> None:
    for first in ((), ("base_family",), ("starred",)):
        columns = (*first, "updated_at")
        name = op.f("_".join(("ix_adapter_live", *columns)))
        op.drop_index(name, "adapter")
        op.create_index(
            name, "adapter", [*columns, "id", *last], sqlite_where=LIVE, postgresql_where=LIVE
        )
