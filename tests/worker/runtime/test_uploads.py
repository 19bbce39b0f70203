"""Uploads that wait to be stored while more are added."""

from __future__ import annotations

import threading

import pytest

from app.registry.storage.store import StorageUnavailable
from worker.runtime.outages import patience
from worker.runtime.outages.uploads import Upload, Uploads

SAMPLES = 20_000


def test_what_is_added_during_an_outage_disturbs_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.0)
    all_added = threading.Event()
    stored: list[int] = []

    def store_checkpoint() -> None:
        if not all_added.is_set():
            raise StorageUnavailable("The storage is away.")

    uploads = Uploads(on_wait=lambda reason: None, on_late=lambda seconds: None)
    uploads.add(Upload((store_checkpoint,), is_checkpoint=True))
    for number in range(SAMPLES):
        uploads.add(Upload((lambda number=number: stored.append(number),)))  # type: ignore[misc]
    all_added.set()
    assert uploads.finish(give_up=lambda: False)
    uploads.close()
    assert stored == list(range(SAMPLES))
