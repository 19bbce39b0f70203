"""An io worker has a sweep ordered once a day, and carries it out."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import col, select

from app.registry.blobs.sweep import order_if_due
from app.registry.db import utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs.service import claim_next, enqueue
from app.registry.tables.jobs import Event, IoJob
from app.registry.tables.people import KeyedRequest
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.upkeep import clock


def lose(registry: Registry) -> str:
    """A blob of yesterday that nobody refers to, in a registry that is older."""
    with registry.database.write() as session:
        first = session.exec(select(Event).order_by(col(Event.id))).first()
        assert first is not None
        first.at = utcnow() - timedelta(days=9)
        session.add(first)
    sha256 = registry.store.put_bytes(b"lost").sha256
    yesterday = time.time() - 90_000
    os.utime(registry.store.local_path(sha256, Path()), (yesterday, yesterday))
    return sha256


def io_jobs(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def test_a_worker_sweeps_soon_after_its_start(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "FIRST_LOOK_SECONDS", 0.01)
    sha256, before = lose(registry), len(list(registry.store.list()))
    with registry.database.write() as session:  # an answer that was kept for a day
        old = KeyedRequest(caller="bearer", key="x", token="x", expires_at=utcnow())
        session.add(old)
    with registry.working(io_jobs(registry)) as loop:
        (job,) = wait_for(lambda: registry.rows(IoJob, kind=JobKind.SWEEP))
        loop.wake()
        done = registry.until_final(IoJob, job.key)
    assert (done.status, done.result) == ("succeeded", {"files": 1, "size_bytes": 4})
    assert [blob.sha256 for blob in registry.store.list_trash()] == [sha256]
    assert len(list(registry.store.list())) == before - 1  # the pictures of the dataset stay
    assert len(registry.rows(IoJob, kind=JobKind.SWEEP)) == 1
    with registry.database.read() as session:
        assert session.exec(select(KeyedRequest)).all() == []


def test_files_of_another_database_are_reported_in_the_result(registry: Registry) -> None:
    sha256 = lose(registry)
    registry.store.write_marker(b"damaged")
    assert order_if_due(registry.database) is not None
    with registry.database.write() as session:
        job, claim = claim_next(session, IoJob, lease_seconds=5) or pytest.fail("no job")
    with Lease(registry.database, IoJob, claim, seconds=5) as lease:
        io_jobs(registry).run(job, lease, threading.Event())
    (row,) = registry.rows(IoJob, kind=JobKind.SWEEP)
    report = "The file registry.json beside the files is damaged."
    assert (row.status, row.result) == (
        "succeeded",
        {"files": 1, "size_bytes": 4, "report": report},
    )
    assert sha256 in {blob.sha256 for blob in registry.store.list()}


def test_other_work_goes_first_and_one_that_ends_gives_it_back(registry: Registry) -> None:
    sha256 = lose(registry)
    assert order_if_due(registry.database) is not None
    stopping = threading.Event()
    stopping.set()
    with registry.database.write() as session:
        enqueue(session, IoJob(kind="unheard_of"))
    for kind in ("unheard_of", JobKind.SWEEP):
        with registry.database.write() as session:
            job, claim = claim_next(session, IoJob, lease_seconds=5) or pytest.fail("no job")
        assert job.kind == kind
        with Lease(registry.database, IoJob, claim, seconds=5) as lease:
            io_jobs(registry).run(job, lease, stopping)
    (row,) = registry.rows(IoJob, kind=JobKind.SWEEP)
    assert (row.status, row.attempt) == ("queued", 0)
    assert registry.store.exists(sha256)


def test_a_clock_that_was_stopped_orders_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "FIRST_LOOK_SECONDS", 0.2)
    work = io_jobs(registry)
    work.prepare()
    work.close()
    time.sleep(0.4)
    assert registry.rows(IoJob, kind=JobKind.SWEEP) == []
