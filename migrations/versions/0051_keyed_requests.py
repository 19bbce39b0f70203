"""requests that programs sent with a key of their own, with their answers

Revision: 0051, after 0050.
"""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyed_request",
        sa.Column("caller", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_keyed_request")),
    )
    op.create_index(op.f("ix_keyed_request_expires_at"), "keyed_request", ["expires_at"])
    op.create_index(op.f("ix_keyed_request_token"), "keyed_request", ["token"])


def downgrade() -> None:
    op.drop_table("keyed_request")
