"""downloads that may hold notes and tags of the registry are written anew, without them

Revision: 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.text("UPDATE adapter_file SET proof = '{}' WHERE NOT with_tags"))


def downgrade() -> None:
    """The files were written anew since; nothing to undo."""
