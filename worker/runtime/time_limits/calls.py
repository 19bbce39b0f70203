"""A database and a store that report their calls: a job that waits for them does no work."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from app.registry.db import Database, Session
from app.registry.storage.store import BlobStore
from worker.runtime.time_limits.messages import Word


class Calls:
    """Reports when the first of several nested calls begins and the last one ends."""

    def __init__(self, tell: Callable[[Word], None]) -> None:
        self._tell = tell
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """A block that is a call."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            before, self._count = self._count, self._count + by
            if not before or not self._count:
                self._tell(Word.CALL if by > 0 else Word.BACK)


class ReportingDatabase(Database):
    """A database whose sessions are calls."""

    calls: Calls

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading."""
        with self.calls.calling(), super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end or rolls back."""
        with self.calls.calling(), super().write() as session:
            yield session


class _ReportingStore:
    def __init__(self, store: BlobStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*arguments: Any, **options: Any) -> Any:
            with self._calls.calling():
                return found(*arguments, **options)

        return call


def reporting_store(store: BlobStore, calls: Calls) -> BlobStore:
    """This store, each method of which is a call; what `open` and `list` give is read without."""
    return cast(BlobStore, _ReportingStore(store, calls))
