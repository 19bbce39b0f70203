"""variants of base models

Revision: 0058, after 0057.
"""

import sqlalchemy as sa
from alembic import op

revision = "0058"
down_revision = "0057"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("base_model", sa.Column("variant", sa.String(length=16), nullable=True))


def downgrade() -> None:
    op.drop_column("base_model", "variant")
