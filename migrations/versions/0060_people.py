"""accounts, access tokens, and who owns and sees what

Revision: 0060, after 0059.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0060", "0059", None, None

THINGS = (
    "dataset", "base_model", "caption_model", "run", "own_preset", "adapter", "render", "grid",
    "blind_test", "prompt_set", "sweep", "recipe", "io_job",
)  # fmt: skip
KEPT_IDS = {"sqlite_autoincrement": True}
WHEN = sa.DateTime()


def upgrade() -> None:
    op.create_table(
        "user_account",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("name_key", sa.String(240), nullable=False, unique=True),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("password_hash", sa.String(200)),
        sa.Column("disabled_at", WHEN),
        sa.Column("seen_at", WHEN),
        sa.Column("makes", sa.String(12)),
        sa.Column("disk_bytes", sa.BigInteger()),
        sa.Column("device_minutes", sa.Integer()),
        sa.Column("waiting_jobs", sa.Integer()),
        sa.Column("created_at", WHEN, nullable=False),
    )
    op.create_table(
        "invitation",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("user_id", sa.Integer(), nullable=False, index=True),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.Column("used_at", WHEN),
    )
    op.create_table(
        "access_token",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("user_id", sa.Integer(), nullable=False, index=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.Column("last_used_at", WHEN),
    )
    op.create_table(
        "share",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("thing_id", sa.Integer(), primary_key=True),
        sa.Column("user_id", sa.Integer(), primary_key=True, index=True),
        sa.Column("may_edit", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "login_failure",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("subject", sa.String(80), nullable=False, unique=True),
        sa.Column("count", sa.Float(), nullable=False),
        sa.Column("last_at", WHEN, nullable=False, index=True),
    )
    op.create_table(
        "device_use",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("user_id", sa.Integer(), nullable=False, index=True),
        sa.Column("hour", WHEN, nullable=False),
        sa.Column("queue", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.UniqueConstraint("user_id", "hour", "queue"),
    )
    for table in THINGS:
        op.add_column(
            table, sa.Column("owner_id", sa.Integer(), nullable=False, server_default="1")
        )
        op.add_column(
            table,
            sa.Column("visibility", sa.String(12), nullable=False, server_default="studio"),
        )
        op.create_index(op.f(f"ix_{table}_owner_id"), table, ["owner_id"])
    op.add_column("event", sa.Column("user_id", sa.Integer()))
    op.add_column("event", sa.Column("address", sa.String(64)))
    op.create_index(op.f("ix_event_user_id"), "event", ["user_id"])
    with op.batch_alter_table("own_preset", table_kwargs=KEPT_IDS) as batch:
        batch.drop_constraint(op.f("uq_own_preset_name_key"), type_="unique")
        batch.create_unique_constraint(
            op.f("uq_own_preset_owner_id_name_key"), ["owner_id", "name_key"]
        )


def downgrade() -> None:
    with op.batch_alter_table("own_preset", table_kwargs=KEPT_IDS) as batch:
        batch.drop_constraint(op.f("uq_own_preset_owner_id_name_key"), type_="unique")
        batch.create_unique_constraint(op.f("uq_own_preset_name_key"), ["name_key"])
    op.drop_index(op.f("ix_event_user_id"), "event")
    op.drop_column("event", "address")
    op.drop_column("event", "user_id")
    for table in THINGS:
        op.drop_index(op.f(f"ix_{table}_owner_id"), table)
        op.drop_column(table, "visibility")
        op.drop_column(table, "owner_id")
    for table in ("device_use", "login_failure", "share", "access_token", "invitation"):
        op.drop_table(table)
    op.drop_table("user_account")
