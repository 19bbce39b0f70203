"""Waiting for what an io worker does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from app.cli.progress_line import progress_line
from app.registry.errors import NotReady
from app.registry.job_kinds.states import Queue
from app.registry.jobs import presence
from app.registry.state import AppState

POLL_SECONDS = 0.2
FoundT = TypeVar("FoundT")


def wait_for_io(
    state: AppState,
    find: Callable[[], FoundT | None],
    progress: Callable[[], str],
    no_worker: str,
) -> FoundT:
    """The result of `find` once the work has ended. Raises NotReady if no io worker is there."""
    with progress_line() as show:
        while (found := find()) is None:
            with state.database.read() as session:
                if not presence.present_workers(session, queue=Queue.IO):
                    raise NotReady(no_worker)
            show(progress())
            time.sleep(POLL_SECONDS)
    return found
