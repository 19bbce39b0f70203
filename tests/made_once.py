"""Rows and blobs that many tests make first: the first test makes them, the others get a copy."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore

MOST = 40
"""Databases in memory, a megabyte each."""


@dataclass(frozen=True)
class _Made:
    key: int
    database: sqlite3.Connection
    blobs: tuple[bytes, ...]


_made: dict[Hashable, _Made] = {}


def made_once(state: AppState, name: Hashable, make: Callable[[], int]) -> int:
    """The key of the row that `make` makes, which has no other effect than on rows and blobs.

    It is called again where other rows or blobs are there already.
    """
    if not state.database.is_sqlite or not isinstance(state.store, LocalBlobStore):
        return make()
    folder = state.settings.data_dir / "blobs"
    with closing(state.database.engine.raw_connection()) as connection:
        there: sqlite3.Connection = connection.driver_connection
        place = name, _digest(there), frozenset(path.name for path in _files(folder))
        if made := _made.get(place):
            made.database.backup(there)
            for content in made.blobs:
                state.store.put_bytes(content)
            return made.key
    key = make()
    if len(_made) < MOST:
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(state.database.engine.raw_connection()) as connection:
            connection.driver_connection.backup(copy)
        _made[place] = _Made(key, copy, tuple(path.read_bytes() for path in _files(folder)))
    return key


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _digest(connection: sqlite3.Connection) -> bytes:
    """A digest of all rows."""
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    digest = hashlib.sha256()
    for (name,) in tables:
        digest.update(repr(connection.execute(f'SELECT * FROM "{name}"').fetchall()).encode())
    return digest.digest()
