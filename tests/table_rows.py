"""Rows of every table: made, and compared after a migration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
"""The rows of each table by their primary keys."""

# made anew from other rows, or no data of a user
DERIVED = ("alembic_version", "adapter_search", "adapter_fts", "sqlite_", "worker")
# Columns whose values have a meaning that the code or a constraint knows.
VALUES: Mapping[str, Any] = {
    "adapter.name": "Ägäis",
    "adapter.notes": "Of the sea",
    "adapter.base_family": "sd1",
    "adapter.deleted_at": None,
    "adapter.run_id": None,
    "adapter.trigger_words": ["blue", "café"],
    "adapter_file.dtype": "fp16",
    "adapter_file.format": "kohya",
    "adapter_version.details": {"tensor_sha256": "7" * 64},
    "adapter_version.trigger_words": ["blue", "café"],
    "base_model.status": "ready",
    "io_job.status": "failed",
    "render.adapters": [{"adapter_id": 1, "weight": 0.5}, {"adapter_id": 2, "weight": 1.0}],
    "render.status": "succeeded",
    "run.status": "canceled",
    "sweep.status": "succeeded",
}


def reflect(connection: sa.Connection) -> sa.MetaData:
    """The tables that hold data, as the database has them."""
    metadata = sa.MetaData()
    metadata.reflect(connection, only=lambda name, _: not name.startswith(DERIVED))
    return metadata


def fill_tables(connection: sa.Connection) -> None:
    """Insert two rows into every table, with a value in every column."""
    for table in reflect(connection).sorted_tables:
        rows = [{c.name: value_for(table, c, number) for c in table.columns} for number in (1, 2)]
        connection.execute(table.insert(), rows)


def value_for(table: sa.Table, column: sa.Column[Any], number: int) -> Any:
    """A value of the column's type that no other row of the table has."""
    name = f"{table.name}.{column.name}"
    if name in VALUES:
        return VALUES[name]
    if column.primary_key or column.foreign_keys:
        return number if isinstance(column.type, sa.Integer) else f"{column.name} {number}"
    match column.type:
        case sa.JSON():
            plain = {"regularization_weight": 0.25, "text": f'"quoted" é {number}'}
            return plain if column.name in ("config", "data", "args", "result") else [plain]
        case sa.LargeBinary():
            return bytes([0, 255, number])
        case sa.DateTime():
            return datetime(2026, 1, number, 12, tzinfo=UTC) + timedelta(microseconds=number)
        case sa.Boolean():
            return number == 1
        case sa.BigInteger():
            return 2**40 + number
        case sa.Integer():
            return 1000 + number
        case sa.Float():
            return number + 0.125
        case sa.String():
            return f"{number} é {column.name}"[: column.type.length]
    raise AssertionError(f"{name} is of the type {column.type!r}")


def read_rows(connection: sa.Connection) -> Rows:
    """Every row of every table."""
    tables = reflect(connection).tables
    return {
        name: {
            tuple(row[key.name] for key in table.primary_key): dict(row)
            for row in connection.execute(table.select()).mappings()
        }
        for name, table in tables.items()
    }


def assert_kept(before: Rows, after: Rows) -> None:
    """Fail unless every row is still there with every value; tables may have new columns."""
    for table, rows in before.items():
        assert rows.keys() == after[table].keys(), table
        for key, row in rows.items():
            assert after[table][key] | row == after[table][key], f"{table} {key}"
