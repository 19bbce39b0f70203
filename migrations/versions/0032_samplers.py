"""a render has a sampler; until now all were of DDIM

Revision: 0032, after 0031.
"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "render",
        sa.Column("sampler", sa.String(32), nullable=False, server_default=sa.text("'ddim'")),
    )
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("render", "sampler", server_default=None)


def downgrade() -> None:
    op.drop_column("render", "sampler")
