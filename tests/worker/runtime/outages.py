"""A store and a database that a test switches off and on again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from app.registry.db import Database, Session
from app.registry.storage.store import BlobStore, StorageUnavailable

REFUSED = "The object store reported an error: connection refused"


class SwitchedStore:
    """A store that does not answer while `away` is set, or raises another error given there."""

    def __init__(self, store: BlobStore) -> None:
        self.away: Exception | None = None
        self.refused = 0
        self._store = store

    def leave(self, error: Exception | None = None) -> None:
        """Answer no more."""
        self.away = error or StorageUnavailable(REFUSED)

    def come_back(self) -> None:
        """Answer again."""
        self.away = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._answering(found) if callable(found) else found

    def _answering(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **options: Any) -> Any:
            if self.away is not None:
                self.refused += 1
                raise self.away
            return call(*args, **options)

        return answer


class SwitchedDatabase(Database):
    """A database that cannot be used while `is_away` is set."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.engine, database._send_wakeup)
        self.is_away = threading.Event()
        self.refused = 0

    @contextmanager
    def read(self) -> Iterator[Session]:
        self._answer()
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._answer()
        with super().write() as session:
            yield session

    def _answer(self) -> None:
        if self.is_away.is_set():
            self.refused += 1
            raise sa.exc.OperationalError("BEGIN", None, Exception("connection refused"))
