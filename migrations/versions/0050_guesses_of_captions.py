"""what a provider of captions was too unsure to name, with its confidence

Revision: 0050, after 0049.
"""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None


def upgrade() -> None:
    guess = sa.Column("guess", sa.Text(), nullable=False, server_default="")
    op.add_column("caption_proposal", guess)
    op.add_column("caption_proposal", sa.Column("confidence", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("caption_proposal", "confidence")
    op.drop_column("caption_proposal", "guess")
