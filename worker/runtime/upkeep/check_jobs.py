"""Check jobs of the io worker: look for damaged and missing files, in small slices."""

from __future__ import annotations

import logging
import time

from app.registry.blobs.check import READ_INTERVAL, SLICE_SECONDS, StoreCheck
from app.registry.db import utcnow
from app.registry.job_kinds.kinds import CheckFilesResult
from worker.runtime.job_progress import IoWork, JobProgress

LOOK_SECONDS = 0.5  # between two looks for other jobs
MAX_PAUSE_SECONDS = 0.5

log = logging.getLogger(__name__)


def run(work: IoWork) -> None:
    """Check files for some minutes, or until none is due.

    All are checked for presence, and those of this machine for their content. It reads at most half
    of the time, and gives its thread to any other job that waits for one. What was read is in the
    database, so the next job goes on where this one ended.
    """
    with work.cancelable() as progress:
        check = StoreCheck(work.database, work.store, on_chunk=_Pace(work, progress).on_chunk)
        stored = check.find_missing()
        local = stored if work.store.is_local else ()
        due = dict.fromkeys((*check.suspects, *check.due(local, before=utcnow() - READ_INTERVAL)))
        left = check.read(list(due), seconds=SLICE_SECONDS)
        check.order_thumbnails()
        if check.problems:
            log.warning("%s stored files are damaged or missing.", len(check.problems))
        work.succeed(
            CheckFilesResult(
                files=check.files_read,
                size_bytes=check.bytes_read,
                problems=len(check.problems),
                left=left,
            )
        )


class _Pace:
    """Pauses for as long as was read, reports progress, and lets other jobs go first."""

    def __init__(self, work: IoWork, progress: JobProgress) -> None:
        self._work = work
        self._progress = progress
        self._looked_at = 0.0
        self._read_from = time.monotonic()

    def on_chunk(self, size: int) -> None:
        """Called with the bytes that were just read."""
        self._progress(0, 1)
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._work.give_way()
        if size:
            self._work.stopping.wait(min(now - self._read_from, MAX_PAUSE_SECONDS))
        self._read_from = time.monotonic()
