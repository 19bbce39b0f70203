"""Every worker records in the store how far the database has got."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from sqlmodel import col, delete

from app.registry.blobs import ownership
from app.registry.blobs.ownership import read_marker
from app.registry.db import Database, utcnow
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.storage.store import BlobStore, StorageUnavailable
from app.registry.tables.jobs import Event
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.runtime import process
from worker.runtime.upkeep import store_recorder
from worker.runtime.upkeep.store_recorder import StoreRecorder


def happen(database: Database) -> None:
    """Store an event of an hour ago."""
    with database.write() as session:
        at = utcnow() - timedelta(hours=1)
        session.add(Event(at=at, subject="x", subject_id=1, kind="queued"))


def recorded(store: BlobStore) -> int | None:
    marker = read_marker(store)
    return marker.newest.number if marker else None


def test_what_happens_is_recorded_and_the_store_is_read_only_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectBlobStore("memory://")
    recorder = StoreRecorder(database, store)
    for number in (1, 2):
        happen(database)
        recorder.look()
        assert recorded(store) == number

    def refuse(_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(ObjectBlobStore, "read_marker", refuse)
    recorder.look()


def test_an_outage_and_a_wrong_database_are_said_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObjectBlobStore("memory://")
    recorder = StoreRecorder(database, store)
    happen(database)

    def away(_: object) -> bytes:
        raise StorageUnavailable("The object store does not answer.")

    with monkeypatch.context() as outage, caplog.at_level(logging.WARNING):
        outage.setattr(ObjectBlobStore, "read_marker", away)
        recorder.look()
        recorder.look()
    assert len(caplog.records) == 1
    recorder.look()
    assert recorded(store) == 1
    with database.write() as session:
        session.exec(delete(Event).where(col(Event.id) > 0))
    with caplog.at_level(logging.WARNING):
        recorder.look()
        recorder.look()
    assert len(caplog.records) == 2
    assert "This database is older than the files" in caplog.text
    assert "brushwork sweep --adopt" in caplog.text


def test_a_worker_records_while_it_runs(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_recorder, "RECORD_SECONDS", 0.01)
    ownership.claim(registry.database, registry.store)
    happen(registry.database)
    process.start(registry.settings, ["io"])
    try:
        wait_for(lambda: recorded(registry.store))
    finally:
        process.stop()
