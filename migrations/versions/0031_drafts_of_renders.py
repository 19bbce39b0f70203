"""renders can be drafts of a slot, and show a preview while they are generated

Revision: 0031, after 0030.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("render", sa.Column("draft_slot", sa.String(64), nullable=True))
    op.add_column("render", sa.Column("preview", sa.LargeBinary(), nullable=True))
    op.create_index(op.f("ix_render_draft_slot"), "render", ["draft_slot"])


def downgrade() -> None:
    op.drop_index(op.f("ix_render_draft_slot"), "render")
    op.drop_column("render", "preview")
    op.drop_column("render", "draft_slot")
