"""Calls of database and store are reported to the worker, whose clock they stop."""

from __future__ import annotations

import pytest

from app.registry.storage.store import BlobNotFound
from tests.worker.runtime.job_loops import Registry
from worker.runtime.time_limits.child import Calls, ReportingDatabase, reporting_store
from worker.runtime.time_limits.messages import Word

ONCE = [Word.CALL, Word.BACK]


def test_calls_of_the_storage_are_told_even_when_they_fail(registry: Registry) -> None:
    told: list[Word] = []
    store = reporting_store(registry.store, Calls(told.append))
    blob = store.put_bytes(b"content")
    assert told == ONCE
    with pytest.raises(BlobNotFound):
        store.open("0" * 64)
    assert told == 2 * ONCE
    assert store.is_local
    assert store.stat(blob.sha256).size == 7
    assert told == 3 * ONCE


def test_sessions_are_one_call_with_all_that_is_called_in_them(registry: Registry) -> None:
    told: list[Word] = []
    calls = Calls(told.append)
    store = reporting_store(registry.store, calls)
    database = ReportingDatabase(registry.database.engine)
    database.calls = calls
    with database.write():
        store.put_bytes(b"content")
        assert told == [Word.CALL]
    assert told == ONCE
    with database.read():
        pass
    assert told == 2 * ONCE
