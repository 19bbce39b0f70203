"""The io worker checks the stored files bit by bit, and lets other jobs go first."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from app.registry.blobs import check as background
from app.registry.blobs import findings
from app.registry.db import utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs.service import claim_next, enqueue
from app.registry.storage import open_store
from app.registry.tables.blobs import BlobCheck, FileProblem
from app.registry.tables.jobs import IoJob
from tests.worker.runtime.job_loops import Registry
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.upkeep import check_jobs, clock


@pytest.fixture
def io_jobs(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def order(registry: Registry) -> IoJob:
    return background.order_if_due(registry.database) or pytest.fail("no check was due")


def claim_and_run(
    registry: Registry, work: IoJobs, stopping: threading.Event | None = None
) -> IoJob:
    with registry.database.write() as session:
        job, claim = claim_next(session, IoJob, lease_seconds=5) or pytest.fail("no job")
    with Lease(registry.database, IoJob, claim, seconds=5) as lease:
        work.run(job, lease, stopping or threading.Event())
    found: IoJob = registry.row(IoJob, claim.job_id)
    return found


def blob_path(registry: Registry, number: int) -> Path:
    blobs = sorted((registry.settings.data_dir / "blobs").glob("??/??/*"))
    return blobs[number]


def problems(registry: Registry) -> dict[str, FileProblem]:
    with registry.database.read() as session:
        return findings.problems(session)


def test_a_check_finds_damaged_and_missing_files(registry: Registry, io_jobs: IoJobs) -> None:
    damaged, missing = blob_path(registry, 0), blob_path(registry, 1)
    damaged.write_bytes(b"#" + damaged.read_bytes()[1:])
    missing.unlink()
    key = order(registry).key
    assert claim_and_run(registry, io_jobs).status == "succeeded"
    result = registry.row(IoJob, key).result
    assert (result["files"], result["problems"], result["left"]) == (3, 2, 0)
    found = {damaged.name: FileProblem.DAMAGED, missing.name: FileProblem.MISSING}
    assert problems(registry) == found
    assert background.order_if_due(registry.database) is None  # not before tomorrow


def test_what_is_left_is_read_by_the_next_job_and_each_file_once_in_a_month(
    registry: Registry, io_jobs: IoJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_jobs, "SLICE_SECONDS", -1.0)
    order(registry)
    assert claim_and_run(registry, io_jobs).result["left"] == 4
    monkeypatch.undo()
    second = order(registry).key  # at once, as files are left
    assert claim_and_run(registry, io_jobs).result["files"] == 4
    with registry.database.write() as session:
        job = session.get_one(IoJob, second)
        job.finished_at = utcnow() - timedelta(hours=25)
        old = session.get_one(BlobCheck, blob_path(registry, 2).name)
        old.checked_at = utcnow() - timedelta(days=31)
        session.add_all([job, old])
    order(registry)
    assert claim_and_run(registry, io_jobs).result["files"] == 1


def test_a_check_gives_way_and_goes_on_where_it_was(
    registry: Registry, io_jobs: IoJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_jobs, "LOOK_SECONDS", 0.0)
    key = order(registry).key
    read = check_jobs.StoreCheck._on_read
    seen: list[int] = []

    def let_another_in(check: check_jobs.StoreCheck, size: int) -> None:
        seen.append(size)
        if len(seen) == 3:
            with registry.database.write() as session:
                enqueue(session, IoJob(kind=JobKind.MAKE_THUMBNAILS, priority=1))
        read(check, size)

    monkeypatch.setattr(check_jobs.StoreCheck, "_on_read", let_another_in)
    assert (claim_and_run(registry, io_jobs).id, registry.row(IoJob, key).status) == (key, "queued")
    assert claim_and_run(registry, io_jobs).kind == JobKind.MAKE_THUMBNAILS
    ended = claim_and_run(registry, io_jobs)
    assert (ended.id, ended.status, ended.attempt) == (key, "succeeded", 1)
    assert ended.result["files"] == 2  # two were read before


def test_a_stopping_worker_returns_a_check(registry: Registry, io_jobs: IoJobs) -> None:
    key = order(registry).key
    stopping = threading.Event()
    stopping.set()
    assert claim_and_run(registry, io_jobs, stopping).status == "queued"
    assert registry.row(IoJob, key).attempt == 0


def test_a_bucket_is_not_read(registry: Registry) -> None:
    bucket = open_store("memory://", registry.settings.data_dir)
    for blob in registry.store.list():
        with registry.store.open(blob.sha256) as content:
            bucket.put_bytes(content.read())
    lost = blob_path(registry, 0).name
    bucket.delete(lost)
    order(registry)
    ended = claim_and_run(registry, IoJobs(registry.settings, registry.database, bucket))
    assert (ended.result["files"], problems(registry)) == (0, {lost: FileProblem.MISSING})


def test_the_clock_orders_checks() -> None:
    assert background.order_if_due in clock.ORDERS
