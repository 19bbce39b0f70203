"""Alembic's entry: migrates the database whose connection `app.registry.migrate` hands over."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

import app.registry.tables.all  # noqa: F401  (fills the metadata)


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Plain SQLAlchemy types, so that old migrations never depend on SQLModel."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})" if item.length else "sa.String()"
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def compare_type(
    _context: Any, _inspected: Any, _metadata_column: Any, inspected: Any, metadata: Any
) -> bool | None:
    """SQLite stores no time zone; everything else is compared by Alembic."""
    if isinstance(metadata, UTCDateTime):
        return not isinstance(inspected, sa.DateTime)
    return None


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """False for what only one of the databases has, to search with."""
    if kind == "table":
        return not str(name).startswith("adapter_fts")
    if kind in ("column", "index") and parents.get("table_name") == "adapter_search":
        return name not in ("grams", "ix_adapter_search_grams")
    return True


connection: sa.Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    render_item=render_item,
    compare_type=compare_type,
    include_name=include_name,
)
with context.begin_transaction():
    context.run_migrations()
