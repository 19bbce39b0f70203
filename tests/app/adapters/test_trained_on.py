"""Versions of adapters are found by the datasets that they were trained on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from app.registry.adapters.versions.create_version import NewVersion, make_version
from app.registry.datasets.used_datasets import trained_on
from app.registry.db import Database
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Dataset, DatasetVersion

SEVERAL = [{"version": 1, "repeats": 1}, {"version": 2, "repeats": 3}]


def add_versions(session: Session) -> None:
    """Versions that were imported, trained on the second of three pinned datasets, and on two."""
    adapter = Adapter(slug="a", name="a", base_family="sd1")
    session.add_all([adapter, Dataset(slug="d", name="d")])
    session.flush()
    pinned = [DatasetVersion(dataset_id=1, fingerprint=x, image_count=1, items=[]) for x in "abc"]
    session.add_all(pinned)
    session.flush()
    kinds: list[tuple[int | None, dict[str, Any]]] = [
        (None, {}),
        (2, {}),
        (1, {"datasets": SEVERAL}),
        (None, {"made": {"datasets": 1}}),
    ]
    for number, (first, details) in enumerate(kinds, start=1):
        new = NewVersion(
            "a",
            "sd1",
            "0" * 64,
            1,
            1,
            1.0,
            dataset_version_id=first,
            details=details,
            number=number,
        )
        session.add(make_version(session, new, adapter))
    session.flush()


def numbers(session: Session, key: int) -> list[int]:
    return [version.version for version in trained_on(session, [key])]


def test_all_datasets_of_a_version_count(database: Database) -> None:
    with database.write() as session:
        add_versions(session)
        assert [numbers(session, key) for key in (1, 2, 3)] == [[3], [2, 3], []]


def test_no_version_is_read_that_was_trained_on_others(database: Database) -> None:
    statements: list[tuple[str, Any]] = []

    def note(*sent: Any) -> None:
        statements.append((sent[2], sent[3]))

    with database.read() as session:
        connection = session.connection()
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # cheaper for no rows
        sa.event.listen(database.engine, "before_cursor_execute", note)
        trained_on(session, [1])
        sa.event.remove(database.engine, "before_cursor_execute", note)
        ((statement, values),) = statements
        words = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{words} {statement}", values)
        plan = "\n".join(str(row[-1]) for row in rows)
    for column in ("dataset_version_id", "on_several_datasets"):
        assert f"ix_adapter_version_{column}" in plan, plan
