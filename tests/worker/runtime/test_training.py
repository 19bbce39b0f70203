"""A run, from the queue to an adapter, in real processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sqlmodel import select

from app.adapters.models import Adapter, AdapterAlias, AdapterFile, AdapterVersion
from app.db import Database
from app.runs.models import Checkpoint, Run, Sample
from app.runs.service import run_metrics
from app.storage import BlobStore
from tests.worker.runtime.rooms import wait_until_final
from worker.adapters import canonical
from worker.adapters.export import read_any
from worker.runtime.room import Room


def test_a_run_becomes_an_adapter_with_downloads(
    sqlite_database: Database, store: BlobStore, new_run: Callable[..., int], train_room: Room
) -> None:
    run_id = new_run(name="Chalk board")
    train_room.serve_hint()
    run = wait_until_final(sqlite_database, Run, run_id)
    assert (run.status, run.error, run.error_trace) == ("succeeded", None, None)
    assert (run.step, run.attempt, run.phase) == (8, 1, None)
    assert run.device == "CPU, 1 threads"
    assert run.trainable_parameters > 0
    assert run.base_parameters > 1_000_000
    with sqlite_database.read() as session:
        version = session.get_one(AdapterVersion, run.adapter_version_id)
        adapter = session.get_one(Adapter, version.adapter_id)
        latest = session.get_one(AdapterAlias, (adapter.key, "latest"))
        files = session.exec(select(AdapterFile)).all()
        samples = session.exec(select(Sample).order_by(Sample.step)).all()
        steps = session.exec(select(Checkpoint.step)).all()
        metrics = run_metrics(session, run_id)
    assert (adapter.slug, adapter.name, adapter.base_family) == ("chalk-board", run.name, "sd1")
    assert latest.version_id == version.key
    assert (version.run_id, version.version, version.trigger_words) == (run_id, 1, ["chalk"])
    assert [sample.step for sample in samples] == [0, 8]
    assert adapter.cover_sha256 == samples[-1].sha256
    assert set(steps) == {6, 8}
    assert metrics["series"]["loss"]["steps"] == list(range(1, 9))
    assert {(file.format, file.dtype) for file in files} == {("kohya", "fp16"), ("peft", "fp16")}
    with tempfile.TemporaryDirectory() as scratch:
        weights = canonical.load(store.local_path(version.sha256, Path(scratch)))
        for file in files:
            copy = read_any(store.local_path(file.sha256, Path(scratch)))
            assert {m.key for m in copy.modules} == {m.key for m in weights.modules}
