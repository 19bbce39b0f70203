"""Results about a dataset that are kept in the process until the dataset changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlmodel import Session

MAX_DATASETS = 50  # datasets in one process

Key = TypeVar("Key")
Result = TypeVar("Result")


class KeptResults(Generic[Key, Result]):
    """The last result for each dataset; another state of the dataset makes another. Thread-safe.

    The key is the id of a dataset, maybe with what else the result is for.
    """

    def __init__(self, make: Callable[[Session, Key], Result]) -> None:
        """`make`: what computes the result of a key."""
        self._make = make
        self._kept: dict[tuple[str, Key], tuple[object, Result]] = {}  # by database and key
        self._lock = threading.Lock()

    def known(self, session: Session, key: Key, state: object) -> Result | None:
        """The result for this state, if it is kept."""
        found = self._find(session, key)
        return found[1] if found is not None and found[0] == state else None

    def last(self, session: Session, key: Key) -> Result | None:
        """The result for the last state that one was computed for, if it is kept."""
        found = self._find(session, key)
        return found[1] if found is not None else None

    def find(self, session: Session, key: Key, state: object) -> Result:
        """The result for this state, computed if it is not kept."""
        known = self.known(session, key, state)
        if known is not None:
            return known
        result = self._make(session, key)
        with self._lock:
            self._kept.pop(_key(session, key), None)
            self._kept[_key(session, key)] = (state, result)
            while len(self._kept) > MAX_DATASETS:
                del self._kept[next(iter(self._kept))]
        return result

    def _find(self, session: Session, key: Key) -> tuple[object, Result] | None:
        with self._lock:
            return self._kept.get(_key(session, key))


def _key(session: Session, key: Key) -> tuple[str, Key]:
    return str(session.get_bind().engine.url), key
