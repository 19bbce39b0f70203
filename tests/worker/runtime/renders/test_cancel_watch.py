"""A render that has to stop: asked first, then ended from outside."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.tables.renders import Render
from tests.conftest import make_base_ready
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled
from worker.runtime.lease import Lease
from worker.runtime.renders import cancel_watch
from worker.runtime.renders.cancel_watch import ENDED, CancelWatch

WAIT = 30.0  # until a test fails


@dataclass(frozen=True)
class Renders:
    """A registry whose renders are canceled and looked at."""

    database: Database

    def cancel(self, key: int) -> None:
        """Ask for the end of a render."""
        with self.database.write() as session:
            jobs.request_cancel(session, Render, session.get_one(Render, key))

    def row(self, key: int) -> Render:
        """The render as it is now."""
        with self.database.read() as session:
            return session.get_one(Render, key)


@pytest.fixture
def renders(sqlite_database: Database) -> Renders:
    return Renders(sqlite_database)


@pytest.fixture
def lease(renders: Renders, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease on a running render."""
    monkeypatch.setattr(cancel_watch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(cancel_watch, "GRACE_SECONDS", 0.05)
    base = make_base_ready(renders.database)
    with renders.database.write() as session:
        values = RenderConfig(prompt="a fox", width=64, height=64).model_dump()
        render = Render(base_model_id=base.key, cache_key="k", **values)
        jobs.enqueue(session, render)
    with renders.database.write() as session:
        found = jobs.claim_next(session, Render, lease_seconds=60)
    assert found is not None
    return Lease(renders.database, Render, found[1], seconds=60)


class Exit:
    """A stand-in for `os._exit`: notes the status and wakes the test."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.called = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self.called.set()


def test_a_render_that_cannot_be_interrupted_is_canceled_and_its_process_ends(
    renders: Renders, lease: Lease
) -> None:
    ended = Exit()
    watch = CancelWatch(renders.database, lease, threading.Event(), end_process=ended)
    with watch, watch.computing():
        assert not watch.should_stop()
        renders.cancel(lease.claim.job_id)
        assert ended.called.wait(WAIT)
        assert watch.should_stop()
    assert ended.status == ENDED
    assert renders.row(lease.claim.job_id).status == "canceled"


def test_a_worker_that_stops_gives_such_a_render_back(renders: Renders, lease: Lease) -> None:
    ended, stopping = Exit(), threading.Event()
    watch = CancelWatch(renders.database, lease, stopping, end_process=ended)
    with watch, watch.computing():
        stopping.set()
        assert ended.called.wait(WAIT)
    found = renders.row(lease.claim.job_id)
    assert (found.status, found.attempt) == ("queued", 0)


def test_a_base_that_is_being_loaded_is_kept_though_the_render_is_canceled(
    renders: Renders, lease: Lease
) -> None:
    ended = Exit()
    watch = CancelWatch(renders.database, lease, threading.Event(), end_process=ended)
    with watch:
        renders.cancel(lease.claim.job_id)
        watch._thread.join(WAIT)
        assert watch.has_stored_end
        with pytest.raises(RenderCanceled), watch.computing():
            pass
    assert ended.status is None
    assert renders.row(lease.claim.job_id).status == "canceled"


def test_a_render_that_stops_in_time_decides_its_own_end(renders: Renders, lease: Lease) -> None:
    ended = Exit()
    watch = CancelWatch(renders.database, lease, threading.Event(), end_process=ended)
    with watch, watch.computing():
        renders.cancel(lease.claim.job_id)
        assert watch._requested.wait(WAIT)
    watch._thread.join(WAIT)
    assert (ended.status, watch.has_stored_end) == (None, False)
    assert renders.row(lease.claim.job_id).status == "running"
