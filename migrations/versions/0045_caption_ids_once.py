"""further captions and caption models: no id is given twice

Revision: 0045, after 0044. The state of a dataset is told from the ids of its captions, and a check
of a caption model ends after the model was removed: for both, a new row must not look like a
deleted one.
"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

TABLES = ("caption_model", "image_caption")


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return  # PostgreSQL's sequences never go back
    for table in TABLES:
        keywords = {"sqlite_autoincrement": True}
        with op.batch_alter_table(table, recreate="always", table_kwargs=keywords):
            pass


def downgrade() -> None:
    pass
