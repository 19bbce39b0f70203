"""An io worker in a thread of the test, as a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.registry.jobs import presence
from app.registry.state import AppState
from worker.runtime import job_loop
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_loop import JobLoop

END_SECONDS = 60


@contextmanager
def io_worker(state: AppState) -> Iterator[None]:
    """It is at work, is seen there, and looks often."""
    loop = JobLoop(
        state.database, IoJobs(state.settings, state.database, state.store), lease_seconds=20
    )
    here = presence.Presence("io")
    here.announce(state.database, device="CPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_loop, "IDLE_SECONDS", 0.1)
        loop.start()
        try:
            yield
        finally:
            loop.request_stop()
            assert loop.join(END_SECONDS)
            here.leave(state.database)
