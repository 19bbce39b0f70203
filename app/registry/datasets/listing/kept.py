"""Results about a dataset that are kept in the process until the dataset changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlmodel import Session

MAX_DATASETS = 50  # datasets in one process

Result = TypeVar("Result")


class KeptResults(Generic[Result]):
    """The last result for each dataset; another state of the dataset makes another. Thread-safe."""

    def __init__(self, make: Callable[[Session, int], Result]) -> None:
        """`make`: what computes the result of a dataset of this id."""
        self._make = make
        self._kept: dict[tuple[str, int], tuple[object, Result]] = {}  # by database and dataset
        self._lock = threading.Lock()

    def known(self, session: Session, dataset_id: int, state: object) -> Result | None:
        """The result for this state, if it is kept."""
        found = self._find(session, dataset_id)
        return found[1] if found is not None and found[0] == state else None

    def last(self, session: Session, dataset_id: int) -> Result | None:
        """The result for the last state that one was computed for, if it is kept."""
        found = self._find(session, dataset_id)
        return found[1] if found is not None else None

    def find(self, session: Session, dataset_id: int, state: object) -> Result:
        """The result for this state, computed if it is not kept."""
        known = self.known(session, dataset_id, state)
        if known is not None:
            return known
        result = self._make(session, dataset_id)
        with self._lock:
            self._kept.pop(_key(session, dataset_id), None)
            self._kept[_key(session, dataset_id)] = (state, result)
            while len(self._kept) > MAX_DATASETS:
                del self._kept[next(iter(self._kept))]
        return result

    def _find(self, session: Session, dataset_id: int) -> tuple[object, Result] | None:
        with self._lock:
            return self._kept.get(_key(session, dataset_id))


def _key(session: Session, dataset_id: int) -> tuple[str, int]:
    return str(session.get_bind().engine.url), dataset_id
