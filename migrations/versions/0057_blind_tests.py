"""blind tests with the answers of their judges

Revision: 0057, after 0056.
"""

import sqlalchemy as sa
from alembic import op

revision = "0057"
down_revision = "0056"
branch_labels = None
depends_on = None

SUBJECTS = ("run_id", "adapter_id")


def upgrade() -> None:
    op.create_table(
        "blind_test",
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=120), nullable=False),
        sa.Column("question", sa.String(length=8), nullable=False),
        *(
            sa.Column(n, sa.JSON(), nullable=False)
            for n in ("candidates", "references", "controls")
        ),
        *(sa.Column(n, sa.Integer()) for n in ("grid_id", "control_grid_id", *SUBJECTS)),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blind_test")),
        sqlite_autoincrement=True,
    )
    for column in SUBJECTS:
        op.create_index(op.f(f"ix_blind_test_{column}"), "blind_test", [column])
    key = op.f("fk_blind_vote_test_id_blind_test")
    one = op.f("uq_blind_vote_test_id_judge_number")
    op.create_table(
        "blind_vote",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("test_id", sa.Integer(), nullable=False),
        sa.Column("judge", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        *(sa.Column(n, sa.Integer(), nullable=False) for n in ("number", "scene", "left", "right")),
        sa.Column("answer", sa.String(length=8), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["test_id"], ["blind_test.id"], name=key),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blind_vote")),
        sa.UniqueConstraint("test_id", "judge", "number", name=one),
    )
    op.create_index(op.f("ix_blind_vote_test_id"), "blind_vote", ["test_id"])
    op.add_column("grid", sa.Column("blind_test_id", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_grid_blind_test_id"), "grid", ["blind_test_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_grid_blind_test_id"), "grid")
    op.drop_column("grid", "blind_test_id")
    op.drop_table("blind_vote")
    op.drop_table("blind_test")
