"""Requests that wait for a job: a short poll, so that most clients get the result at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

FILE_PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1
FoundT = TypeVar("FoundT")


async def poll_until_found(find: Callable[[], FoundT | None]) -> FoundT | None:
    """The result of `find`, polled until it has one; None after FILE_PATIENCE_SECONDS."""
    until = time.monotonic() + FILE_PATIENCE_SECONDS
    while True:
        found = await anyio.to_thread.run_sync(find)
        if found is not None or time.monotonic() > until:
            return found
        await anyio.sleep(POLL_SECONDS)
