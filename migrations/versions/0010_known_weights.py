"""weights that are here already are found by an index, whatever their file

Revision: 0010, after 0009.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("adapter_version", sa.Column("file_tensor_sha256", sa.String(64), nullable=True))
    op.create_index(
        op.f("ix_adapter_version_file_tensor_sha256"), "adapter_version", ["file_tensor_sha256"]
    )
    op.create_index(op.f("ix_adapter_version_sha256"), "adapter_version", ["sha256"])
    op.create_index(op.f("ix_adapter_file_sha256"), "adapter_file", ["sha256"])
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, details FROM adapter_version")).all()
    told = {
        key: (json.loads(details) if isinstance(details, str) else details).get("tensor_sha256")
        for key, details in rows
    }
    change = sa.text("UPDATE adapter_version SET file_tensor_sha256 = :value WHERE id = :key")
    for key, value in told.items():
        if value:
            connection.execute(change, {"key": key, "value": value})


def downgrade() -> None:
    op.drop_index(op.f("ix_adapter_file_sha256"), "adapter_file")
    op.drop_index(op.f("ix_adapter_version_sha256"), "adapter_version")
    op.drop_index(op.f("ix_adapter_version_file_tensor_sha256"), "adapter_version")
    with op.batch_alter_table("adapter_version", schema=None) as batch_op:
        batch_op.drop_column("file_tensor_sha256")
