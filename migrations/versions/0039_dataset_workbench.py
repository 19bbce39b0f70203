"""datasets have undoable edits, images several captions, a focus point and measures

Revision: 0039, after 0037.
"""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0037"
branch_labels = None
depends_on = None

OLD_UNIQUE = "uq_caption_revision_image_id_version"
NEW_UNIQUE = "uq_caption_revision_image_id_kind_version"
EDIT_KEY = "fk_caption_revision_edit_id_dataset_edit"
IMAGE_COLUMNS = ("caption_kind", "caption_share", "set_aside", "focus_x", "focus_y")


def upgrade() -> None:
    for column in (
        sa.Column("caption_kind", sa.String(16), nullable=False, server_default="long"),
        sa.Column("caption_share", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("set_aside", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("focus_x", sa.Float(), nullable=True),
        sa.Column("focus_y", sa.Float(), nullable=True),
    ):
        op.add_column("image", column)
    op.create_table(
        "image_caption",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_caption_image_id_image")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_caption")),
        sa.UniqueConstraint("image_id", "kind", name=op.f("uq_image_caption_image_id_kind")),
    )
    op.create_index(op.f("ix_image_caption_image_id"), "image_caption", ["image_id"])
    op.create_table(
        "dataset_edit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_dataset_edit_dataset_id_dataset")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_edit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_dataset_edit_dataset_id"), "dataset_edit", ["dataset_id"])
    op.create_table(
        "image_measure",
        sa.Column("clean_sha256", sa.String(64), nullable=False),
        sa.Column("measure_version", sa.Integer(), nullable=False),
        sa.Column("sharpness", sa.Float(), nullable=True),
        sa.Column("perceptual_hash", sa.String(64), nullable=True),
        sa.Column("has_transparency", sa.Boolean(), nullable=True),
        sa.Column("ground", sa.String(7), nullable=True),
        sa.Column("ground_share", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("clean_sha256", name=op.f("pk_image_measure")),
    )
    with op.batch_alter_table("caption_revision") as batch:
        batch.add_column(sa.Column("kind", sa.String(16), nullable=False, server_default="long"))
        batch.add_column(sa.Column("source", sa.String(16), nullable=True))
        batch.add_column(sa.Column("source_name", sa.String(200), nullable=True))
        batch.add_column(sa.Column("edit_id", sa.Integer(), nullable=True))
        batch.create_foreign_key(op.f(EDIT_KEY), "dataset_edit", ["edit_id"], ["id"])
        batch.drop_constraint(op.f(OLD_UNIQUE), type_="unique")
        batch.create_unique_constraint(op.f(NEW_UNIQUE), ["image_id", "kind", "version"])
        batch.create_index(op.f("ix_caption_revision_edit_id"), ["edit_id"])


def downgrade() -> None:
    op.execute("DELETE FROM caption_revision WHERE kind <> 'long'")
    with op.batch_alter_table("caption_revision") as batch:
        batch.drop_index(op.f("ix_caption_revision_edit_id"))
        batch.drop_constraint(op.f(NEW_UNIQUE), type_="unique")
        batch.drop_constraint(op.f(EDIT_KEY), type_="foreignkey")
        for name in ("edit_id", "source_name", "source", "kind"):
            batch.drop_column(name)
        batch.create_unique_constraint(op.f(OLD_UNIQUE), ["image_id", "version"])
    op.drop_table("image_measure")
    op.drop_table("dataset_edit")
    op.drop_table("image_caption")
    for name in reversed(IMAGE_COLUMNS):
        op.drop_column("image", name)
