"""A second registry beside that of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry.db import Database, make_engine


@pytest.fixture
def other_database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """An empty SQLite database of another registry."""
    path = tmp_path / "other.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(make_engine(f"sqlite:///{path}"))
    yield database
    database.dispose()
