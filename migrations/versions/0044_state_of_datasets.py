"""indexes from which the state of a dataset is read

Revision: 0044, after 0043. Each page of a dataset asks whether an image, caption or measure has
changed; without the indexes it reads every row of its images for that.
"""

from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_image_state",
        "image",
        [
            "dataset_id",
            "deleted_at",
            "id",
            "set_aside",
            "caption_version",
            "caption_share",
            "clean_sha256",
        ],
    )
    op.drop_index(op.f("ix_image_dataset_id"), "image")
    op.create_index("ix_image_measure_state", "image_measure", ["clean_sha256", "measure_version"])


def downgrade() -> None:
    op.drop_index("ix_image_measure_state", "image_measure")
    op.create_index(op.f("ix_image_dataset_id"), "image", ["dataset_id"])
    op.drop_index("ix_image_state", "image")
