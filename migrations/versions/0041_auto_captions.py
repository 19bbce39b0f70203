"""captions are proposed by models, some of them on this machine

Revision: 0041, after 0040.
"""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "caption_proposal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("removed", sa.Text(), nullable=False),
        sa.Column("source_name", sa.String(200), nullable=False),
        sa.Column("seen_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["io_job.id"], name=op.f("fk_caption_proposal_job_id_io_job")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_caption_proposal_image_id_image")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caption_proposal")),
        sa.UniqueConstraint("job_id", "image_id", name=op.f("uq_caption_proposal_job_id_image_id")),
    )
    op.create_index(op.f("ix_caption_proposal_job_id"), "caption_proposal", ["job_id"])
    op.create_index(op.f("ix_caption_proposal_image_id"), "caption_proposal", ["image_id"])
    op.create_table(
        "caption_model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(140), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("local_path", sa.String(), nullable=True),
        sa.Column("revision", sa.String(64), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("family", sa.String(16), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caption_model")),
        sa.UniqueConstraint("slug", name=op.f("uq_caption_model_slug")),
        sa.UniqueConstraint("source", name=op.f("uq_caption_model_source")),
    )


def downgrade() -> None:
    op.drop_table("caption_model")
    op.drop_table("caption_proposal")
