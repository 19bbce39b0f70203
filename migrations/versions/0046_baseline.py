"""The baseline: every table as the first 46 migrations made it.

Revision: 0046, after nothing. Commit 1df9e16 has those migrations. They are written out here, not
taken from the code, whose tables change with later migrations.
"""

from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = None
branch_labels = None
depends_on = None

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
tables = sa.MetaData(naming_convention=NAMES)

TIME = sa.DateTime(timezone=True)
SHA256 = sa.String(64)
# PostgreSQL sorts by bytes there, as SQLite does everywhere
SORT_NAME = sa.String(240).with_variant(sa.String(240, collation="C"), "postgresql")
NO_REUSED_IDS = {"sqlite_autoincrement": True}

required = partial(sa.Column, nullable=False)
optional = partial(sa.Column, nullable=True)


def key() -> sa.Column[int]:
    """The column `id`."""
    return sa.Column("id", sa.Integer(), primary_key=True)


def reference(table: str, **options: Any) -> sa.ForeignKey:
    """A reference to the row of a table by its id."""
    return sa.ForeignKey(f"{table}.id", **options)


def job_columns() -> tuple[sa.Column[Any] | sa.CheckConstraint, ...]:
    """The columns with which each table of jobs begins."""
    return (
        key(),
        required("status", sa.String(16), index=True),
        required("priority", sa.Integer()),
        required("created_at", TIME),
        optional("started_at", TIME),
        optional("finished_at", TIME),
        required("attempt", sa.Integer()),
        required("max_attempts", sa.Integer()),
        optional("owner_token", sa.String(64)),
        optional("lease_until", TIME),
        required("cancel_requested", sa.Boolean()),
        optional("error_code", sa.String(40)),
        optional("error", sa.String()),
        optional("error_trace", sa.String()),
        sa.CheckConstraint(
            "status IN ('queued', 'paused', 'running', 'succeeded', 'failed', 'canceled')",
            name="status",
        ),
    )


# -- datasets

sa.Table(
    "dataset",
    tables,
    key(),
    required("slug", sa.String(140), unique=True),
    required("name", sa.String(120)),
    optional("trigger_word", sa.String(60)),
    required("created_at", TIME),
    optional("deleted_at", TIME, index=True),
    **NO_REUSED_IDS,
)

sa.Table(
    "image",
    tables,
    key(),
    required("dataset_id", reference("dataset")),
    required("sha256", SHA256),
    required("clean_sha256", SHA256),
    required("thumbnail_sha256", SHA256),
    required("filename", sa.String(200)),
    required("width", sa.Integer()),
    required("height", sa.Integer()),
    required("size_bytes", sa.Integer()),
    optional("note", sa.String()),
    required("caption", sa.Text()),
    required("caption_version", sa.Integer()),
    required("created_at", TIME),
    optional("deleted_at", TIME),
    required("repeats", sa.Integer()),
    required("never_flip", sa.Boolean()),
    required("caption_kind", sa.String(16), server_default="long"),
    required("caption_share", sa.Integer(), server_default="1"),
    required("set_aside", sa.Boolean(), server_default=sa.false()),
    optional("focus_x", sa.Float()),
    optional("focus_y", sa.Float()),
    sa.UniqueConstraint("dataset_id", "sha256"),
    sa.Index(
        "ix_image_state",
        "dataset_id",
        "deleted_at",
        "id",
        "set_aside",
        "caption_version",
        "caption_share",
        "clean_sha256",
    ),
    **NO_REUSED_IDS,
)

sa.Table(
    "image_caption",
    tables,
    key(),
    required("image_id", reference("image"), index=True),
    required("kind", sa.String(16)),
    required("caption", sa.Text()),
    required("share", sa.Integer()),
    required("version", sa.Integer()),
    sa.UniqueConstraint("image_id", "kind"),
    **NO_REUSED_IDS,
)

sa.Table(
    "caption_revision",
    tables,
    key(),
    required("image_id", reference("image"), index=True),
    required("version", sa.Integer()),
    required("caption", sa.Text()),
    required("created_at", TIME),
    required("kind", sa.String(16), server_default="long"),
    optional("source", sa.String(16)),
    optional("source_name", sa.String(200)),
    optional("edit_id", reference("dataset_edit"), index=True),
    optional("removed_share", sa.Integer()),
    sa.UniqueConstraint("image_id", "kind", "version"),
)

sa.Table(
    "dataset_edit",
    tables,
    key(),
    required("dataset_id", reference("dataset"), index=True),
    required("action", sa.String(40)),
    required("settings", sa.JSON()),
    required("changed", sa.Integer()),
    required("before", sa.JSON()),
    required("created_at", TIME),
    optional("undone_at", TIME),
    **NO_REUSED_IDS,
)

sa.Table(
    "caption_proposal",
    tables,
    key(),
    required("job_id", reference("io_job"), index=True),
    required("image_id", reference("image"), index=True),
    required("kind", sa.String(16)),
    required("mode", sa.String(16)),
    required("state", sa.String(16)),
    required("caption", sa.Text()),
    required("note", sa.Text()),
    required("removed", sa.Text()),
    required("source_name", sa.String(200)),
    required("seen_version", sa.Integer()),
    required("created_at", TIME),
    sa.UniqueConstraint("job_id", "image_id"),
)

sa.Table(
    "image_measure",
    tables,
    required("clean_sha256", SHA256, primary_key=True),
    required("measure_version", sa.Integer()),
    optional("sharpness", sa.Float()),
    optional("perceptual_hash", sa.String(64)),
    optional("has_transparency", sa.Boolean()),
    optional("ground", sa.String(7)),
    optional("ground_share", sa.Float()),
    sa.Index("ix_image_measure_state", "clean_sha256", "measure_version"),
)

sa.Table(
    "dataset_version",
    tables,
    key(),
    required("dataset_id", reference("dataset"), index=True),
    required("fingerprint", sa.String(64)),
    required("image_count", sa.Integer()),
    required("items", sa.JSON()),
    required("created_at", TIME),
    sa.UniqueConstraint("dataset_id", "fingerprint"),
    **NO_REUSED_IDS,
)

# -- base models and caption models

sa.Table(
    "base_model",
    tables,
    key(),
    required("slug", sa.String(140), unique=True),
    required("name", sa.String(120)),
    required("source", sa.String(), unique=True),
    required("status", sa.String(16)),
    optional("error", sa.String()),
    optional("family", sa.String(16)),
    optional("prediction_type", sa.String(16)),
    optional("resolution", sa.Integer()),
    optional("cross_attention_dim", sa.Integer()),
    required("parameters", sa.JSON()),
    optional("size_bytes", sa.BigInteger()),
    optional("fingerprint", sa.String(64)),
    required("created_at", TIME),
    optional("local_path", sa.String()),
    optional("revision", sa.String(64)),
    sa.CheckConstraint(
        "status IN ('downloading', 'checking', 'ready', 'failed', 'removed')", name="status"
    ),
)

sa.Table(
    "base_speed",
    tables,
    key(),
    required("base_model_id", reference("base_model"), index=True),
    required("batch_size", sa.Integer()),
    required("resolution", sa.Integer()),
    required("rank", sa.Integer()),
    required("seconds_per_step", sa.Float()),
    required("trainable_parameters", sa.Integer()),
    required("adapter_bytes", sa.Integer()),
    required("measured_at", TIME),
    required("layers", sa.String(255)),
    sa.UniqueConstraint("base_model_id", "batch_size", "resolution", "rank", "layers"),
)

sa.Table(
    "base_precision",
    tables,
    key(),
    required("base_model_id", reference("base_model"), index=True),
    required("machine", sa.String(40)),
    optional("fingerprint", sa.String(64)),
    required("precision", sa.String(8)),
    required("processor", sa.String(80)),
    optional("width", sa.Integer()),
    optional("height", sa.Integer()),
    optional("fp32_seconds", sa.Float()),
    optional("bf16_seconds", sa.Float()),
    optional("step_effect", sa.Float()),
    required("chosen_at", TIME),
    sa.UniqueConstraint("base_model_id", "machine"),
)

sa.Table(
    "caption_model",
    tables,
    key(),
    required("slug", sa.String(140), unique=True),
    required("name", sa.String(120)),
    required("source", sa.String(), unique=True),
    optional("local_path", sa.String()),
    optional("revision", sa.String(64)),
    required("status", sa.String(16)),
    optional("error", sa.String()),
    optional("family", sa.String(16)),
    optional("size_bytes", sa.BigInteger()),
    required("created_at", TIME),
    **NO_REUSED_IDS,
)

# -- runs

sa.Table(
    "run",
    tables,
    *job_columns(),
    required("name", sa.String(120)),
    required("dataset_id", reference("dataset"), index=True),
    required("dataset_version_id", reference("dataset_version")),
    required("base_model_id", reference("base_model"), index=True),
    optional("preset", sa.String(20)),
    optional("trigger_word", sa.String(60)),
    required("config", sa.JSON()),
    optional("parent_id", reference("run")),
    optional("phase", sa.String(40)),
    required("step", sa.Integer()),
    required("total_steps", sa.Integer()),
    optional("loss", sa.Float()),
    optional("steps_per_second", sa.Float()),
    optional("device", sa.String(80)),
    optional("trainable_parameters", sa.BigInteger()),
    optional("base_parameters", sa.BigInteger()),
    optional("peak_memory_bytes", sa.BigInteger()),
    required("training_seconds", sa.Float()),
    optional("resumed_at_step", sa.Integer()),
    optional("adapter_version_id", reference("adapter_version")),
    required("stop_requested", sa.Boolean()),
    required("sample_requested", sa.Boolean()),
    required("save_requested", sa.Boolean()),
    required("arithmetic", sa.JSON()),
    optional("regularization_version_id", reference("dataset_version")),
    optional("adapter_id", reference("adapter")),
    optional("waits_for", sa.String()),
    optional("own_preset", sa.JSON()),
    optional("outcome", sa.String(20)),
    optional("outcome_reason", sa.String()),
    optional("good_steps", sa.JSON()),
    optional("loss_rise", sa.Float()),
    required("notes", sa.Text(), server_default=""),
    required("sort_name", SORT_NAME, index=True, server_default=""),
    required("search_text", sa.Text(), server_default=""),
    required("dataset_repeats", sa.Integer(), server_default="1"),
    **NO_REUSED_IDS,
)

sa.Table(
    "run_dataset",
    tables,
    key(),
    required("run_id", reference("run"), index=True),
    required("place", sa.Integer()),
    required("dataset_id", reference("dataset"), index=True),
    required("dataset_version_id", reference("dataset_version"), index=True),
    required("repeats", sa.Integer()),
    sa.UniqueConstraint("run_id", "dataset_id"),
    sa.UniqueConstraint("run_id", "place"),
)

sa.Table(
    "metric_chunk",
    tables,
    key(),
    required("run_id", reference("run"), index=True),
    required("key", sa.String(40)),
    required("first_step", sa.Integer()),
    required("count", sa.Integer()),
    required("minimum", sa.Float()),
    required("maximum", sa.Float()),
    required("mean", sa.Float()),
    required("data", sa.LargeBinary()),
    sa.UniqueConstraint("run_id", "key", "first_step"),
)

sa.Table(
    "sample",
    tables,
    key(),
    required("run_id", reference("run"), index=True),
    required("step", sa.Integer()),
    required("prompt_index", sa.Integer()),
    required("prompt", sa.Text()),
    required("seed", sa.BigInteger()),
    required("sha256", SHA256),
    required("created_at", TIME),
    sa.UniqueConstraint("run_id", "step", "prompt_index"),
)

sa.Table(
    "checkpoint",
    tables,
    key(),
    required("run_id", reference("run"), index=True),
    required("step", sa.Integer()),
    required("sha256", SHA256),
    required("size_bytes", sa.BigInteger()),
    required("created_at", TIME),
    required("kept", sa.Boolean(), server_default=sa.false()),
    sa.UniqueConstraint("run_id", "step"),
)

sa.Table(
    "own_preset",
    tables,
    key(),
    required("name", sa.String(120)),
    required("name_key", sa.String(400), unique=True),
    required("preset", sa.String(20)),
    required("config", sa.JSON()),
    optional("base_family", sa.String(20)),
    optional("resolution", sa.Integer()),
    required("created_at", TIME),
    **NO_REUSED_IDS,
)

# -- adapters

LIVE = sa.text("deleted_at IS NULL AND run_id IS NULL")
DELETED = sa.text("deleted_at IS NOT NULL")
OF_A_RUN = sa.text("run_id IS NOT NULL")

sa.Table(
    "adapter",
    tables,
    key(),
    required("slug", sa.String(140), unique=True),
    required("name", sa.String(120)),
    required("trigger_words", sa.JSON()),
    required("notes", sa.Text()),
    required("starred", sa.Boolean()),
    required("base_family", sa.String(16)),
    optional("cover_sha256", SHA256),
    required("created_at", TIME),
    required("updated_at", TIME),
    optional("deleted_at", TIME),
    required("license", sa.String(80)),
    required("sort_name", SORT_NAME),
    required("last_version", sa.Integer(), server_default=sa.text("0")),
    optional("run_id", sa.Integer()),
    optional("imported_cover_sha256", SHA256),
    *(
        sa.Index(
            "_".join(("ix_adapter_live", *first, order)),
            *first,
            order,
            "id",
            sqlite_where=LIVE,
            postgresql_where=LIVE,
        )
        for first in ((), ("base_family",), ("starred",))
        for order in ("updated_at", "sort_name")
    ),
    sa.Index(
        "ix_adapter_deleted", "deleted_at", "id", sqlite_where=DELETED, postgresql_where=DELETED
    ),
    sa.Index(
        "ix_adapter_run_id", "run_id", unique=True, sqlite_where=OF_A_RUN, postgresql_where=OF_A_RUN
    ),
    **NO_REUSED_IDS,
)

sa.Table(
    "adapter_version",
    tables,
    key(),
    required("adapter_id", reference("adapter"), index=True),
    required("version", sa.Integer()),
    required("sha256", SHA256, index=True),
    required("size_bytes", sa.BigInteger()),
    optional("run_id", sa.Integer()),
    optional("dataset_version_id", reference("dataset_version"), index=True),
    optional("base_model_id", reference("base_model"), index=True),
    required("rank", sa.Integer()),
    required("alpha", sa.Float()),
    optional("steps", sa.Integer()),
    required("trigger_words", sa.JSON()),
    optional("trainable_parameters", sa.BigInteger()),
    optional("base_parameters", sa.BigInteger()),
    optional("peak_memory_bytes", sa.BigInteger()),
    optional("training_seconds", sa.Float()),
    required("config", sa.JSON()),
    required("details", sa.JSON()),
    required("created_at", TIME),
    optional("tensor_sha256", SHA256, index=True),
    optional("code_version", sa.String(80)),
    optional("file_tensor_sha256", SHA256, index=True),
    required("kept", sa.Boolean(), server_default=sa.false()),
    required("usual_weight", sa.Float(), server_default=sa.text("1")),
    optional("ruined", sa.String()),
    required("on_several_datasets", sa.Boolean(), index=True, server_default=sa.false()),
    sa.UniqueConstraint("adapter_id", "version"),
    **NO_REUSED_IDS,
)

sa.Table(
    "adapter_alias",
    tables,
    required("adapter_id", reference("adapter"), primary_key=True),
    required("alias", sa.String(40), primary_key=True),
    required("version_id", reference("adapter_version")),
)

sa.Table(
    "adapter_tag",
    tables,
    required("adapter_id", reference("adapter"), primary_key=True),
    required("tag", sa.String(40), index=True, primary_key=True),
)

sa.Table(
    "adapter_file",
    tables,
    key(),
    required("version_id", reference("adapter_version"), index=True),
    required("format", sa.String(16)),
    required("dtype", sa.String(8)),
    required("sha256", SHA256, index=True),
    required("size_bytes", sa.BigInteger()),
    required("created_at", TIME),
    required("with_tags", sa.Boolean()),
    required("proof", sa.JSON()),
    optional("facts_sha256", SHA256),
    sa.UniqueConstraint("version_id", "format", "dtype", "with_tags"),
)

sa.Table(
    "adapter_search",
    tables,
    required("adapter_id", reference("adapter", ondelete="CASCADE"), primary_key=True),
    required("text", sa.Text()),
)

# -- renders, grids and recipes

sa.Table(
    "render",
    tables,
    *job_columns(),
    required("base_model_id", reference("base_model"), index=True),
    required("prompt", sa.Text()),
    required("negative_prompt", sa.Text()),
    required("seed", sa.BigInteger()),
    required("steps", sa.Integer()),
    required("guidance", sa.Float()),
    required("width", sa.Integer()),
    required("height", sa.Integer()),
    required("count", sa.Integer()),
    required("adapters", sa.JSON()),
    required("cache_key", sa.String(64), index=True),
    optional("twin_id", reference("render"), index=True),
    required("progress", sa.Integer()),
    optional("seconds", sa.Float()),
    required("from_cache", sa.Boolean()),
    optional("note", sa.String()),
    required("clip_skip", sa.Integer()),
    optional("precision", sa.String(8)),
    optional("waits_for", sa.String()),
    optional("deleted_at", sa.DateTime()),  # without a time zone in PostgreSQL, by mistake
    optional("draft_slot", sa.String(64), index=True),
    optional("preview", sa.LargeBinary()),
    required("sampler", sa.String(32), server_default="ddim"),
    required("starred", sa.Boolean(), server_default=sa.false()),
    required("search_text", sa.Text(), server_default=""),
    optional("weights", sa.JSON()),
    optional("source_sha256", SHA256, index=True),
    optional("strength", sa.Float()),
    **NO_REUSED_IDS,
)

sa.Table(
    "render_adapter",
    tables,
    required("adapter_id", reference("adapter"), primary_key=True),
    required("render_id", reference("render"), index=True, primary_key=True),
    required("hidden", sa.Boolean(), server_default=sa.false()),
    required("was_cover", sa.Boolean(), server_default=sa.false()),
)

sa.Table(
    "render_image",
    tables,
    key(),
    required("render_id", reference("render"), index=True),
    required("index", sa.Integer()),
    required("seed", sa.BigInteger()),
    required("sha256", SHA256, index=True),
    sa.UniqueConstraint("render_id", "index"),
)

sa.Table(
    "render_source",
    tables,
    required("sha256", SHA256, primary_key=True),
    required("width", sa.Integer()),
    required("height", sa.Integer()),
    required("used_at", TIME, index=True),
)

sa.Table(
    "grid",
    tables,
    key(),
    required("title", sa.String(120)),
    required("request", sa.JSON()),
    required("axes", sa.JSON()),
    optional("winner", sa.Integer()),
    required("created_at", TIME),
    optional("deleted_at", TIME),
    **NO_REUSED_IDS,
)

sa.Table(
    "grid_cell",
    tables,
    required("grid_id", reference("grid"), primary_key=True),
    required("place", sa.Integer(), primary_key=True),
    optional("render_id", reference("render"), index=True),
    required("image_index", sa.Integer()),
    required("cache_key", sa.String(64), index=True),
)

sa.Table(
    "recipe",
    tables,
    key(),
    required("slug", sa.String(140), unique=True),
    required("name", sa.String(120)),
    required("base_model", sa.String(140)),
    required("prompt", sa.Text()),
    required("negative_prompt", sa.Text()),
    optional("seed", sa.BigInteger()),
    required("sampler", sa.String(32)),
    required("steps", sa.Integer()),
    required("guidance", sa.Float()),
    required("clip_skip", sa.Integer()),
    required("width", sa.Integer()),
    required("height", sa.Integer()),
    required("count", sa.Integer()),
    required("adapters", sa.JSON()),
    required("mix", sa.String(8)),
    required("cache_key", sa.String(64)),
    required("created_at", TIME),
    required("updated_at", TIME),
    optional("deleted_at", TIME),
    optional("source_sha256", SHA256),
    optional("strength", sa.Float()),
    **NO_REUSED_IDS,
)

# -- jobs, workers and the registry

sa.Table(
    "io_job",
    tables,
    *job_columns(),
    required("kind", sa.String(40), index=True),
    optional("subject_id", sa.Integer()),
    required("args", sa.JSON()),
    required("result", sa.JSON()),
    optional("waits_for", sa.String()),
    sa.Index("ix_io_job_kind_subject_id", "kind", "subject_id"),
    **NO_REUSED_IDS,
)

sa.Table(
    "event",
    tables,
    key(),
    required("at", TIME),
    required("subject", sa.String(40)),
    required("subject_id", sa.Integer()),
    required("kind", sa.String(40)),
    required("data", sa.JSON()),
    optional("actor", sa.String(80)),
    sa.Index("ix_event_subject", "subject", "subject_id"),
)

sa.Table(
    "worker",
    tables,
    required("id", sa.String(32), primary_key=True),
    required("queue", sa.String(16), index=True),
    required("host", sa.String(255)),
    required("pid", sa.Integer()),
    required("device", sa.String(80)),
    required("started_at", TIME),
    required("seen_at", TIME),
    required("machine", sa.String(40)),
    required("problem", sa.String()),
    required("remedy", sa.String()),
)

sa.Table(
    "registry",
    tables,
    key(),
    required("uid", sa.String(32)),
    required("created_at", TIME),
)

sa.Table(
    "login_session",
    tables,
    key(),
    required("token_sha256", SHA256, unique=True),
    required("secret_mark", sa.String(100)),
    optional("user_id", sa.Integer()),
    required("created_at", TIME),
    required("last_used_at", TIME, index=True),
    required("expires_at", TIME),
    required("address", sa.String(64)),
    required("browser", sa.String(200)),
)

sa.Table(
    "thumbnail",
    tables,
    required("sha256", SHA256, primary_key=True),
    optional("small_sha256", SHA256),
    optional("large_sha256", SHA256),
)

sa.Table(
    "blob_check",
    tables,
    required("sha256", SHA256, primary_key=True),
    required("checked_at", TIME, index=True),
    optional("problem", sa.String(16), index=True),
)

sa.Table(
    "erased_hash",
    tables,
    key(),
    required("sha256", SHA256, index=True),
    required("at", TIME, index=True),
    **NO_REUSED_IDS,
)

# -- the search for adapters, which each database has in its own way

# trigrams of the text in adapter_search, kept in step by triggers
SQLITE = (
    "CREATE VIRTUAL TABLE adapter_fts USING fts5"
    "(text, content='adapter_search', content_rowid='adapter_id', tokenize='trigram')",
    "CREATE TRIGGER adapter_search_inserted AFTER INSERT ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(rowid, text) VALUES (new.adapter_id, new.text); END",
    "CREATE TRIGGER adapter_search_deleted AFTER DELETE ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(adapter_fts, rowid, text) "
    "VALUES ('delete', old.adapter_id, old.text); END",
    "CREATE TRIGGER adapter_search_updated AFTER UPDATE ON adapter_search BEGIN "
    "INSERT INTO adapter_fts(adapter_fts, rowid, text) "
    "VALUES ('delete', old.adapter_id, old.text); "
    "INSERT INTO adapter_fts(rowid, text) VALUES (new.adapter_id, new.text); END",
)
# hashed trigrams in an array; fastupdate off, so that no search pays for an insert
POSTGRESQL = (
    "ALTER TABLE adapter_search ADD COLUMN grams integer[] NOT NULL DEFAULT '{}'",
    "CREATE INDEX ix_adapter_search_grams ON adapter_search USING gin (grams) "
    "WITH (fastupdate = off)",
)

# columns that have their default in SQLite only: a migration could not take it away there
SQLITE_DEFAULTS = {
    "adapter": ("last_version",),
    "adapter_version": ("kept", "usual_weight"),
    "checkpoint": ("kept",),
    "render": ("sampler", "starred", "search_text"),
    "render_adapter": ("hidden", "was_cover"),
    "run": ("notes", "sort_name", "search_text"),
}


def upgrade() -> None:
    connection = op.get_bind()
    tables.create_all(connection, checkfirst=False)
    if connection.dialect.name == "sqlite":
        for statement in SQLITE:
            op.execute(statement)
        return
    for statement in POSTGRESQL:
        op.execute(statement)
    for table, names in SQLITE_DEFAULTS.items():
        for name in names:
            op.alter_column(table, name, server_default=None)


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        op.execute("DROP TABLE adapter_fts")
    tables.drop_all(connection, checkfirst=False)
