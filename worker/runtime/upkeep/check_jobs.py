"""Check jobs of the io worker: look for damaged and missing files, in small slices."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.registry.blobs.check import StoreCheck
from app.registry.blobs.check_jobs import READ_INTERVAL, SLICE_SECONDS
from app.registry.db import Database, utcnow
from app.registry.job_kinds.kinds import CheckFilesResult
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.job_progress import JobProgress, cancelable, give_way, succeed
from worker.runtime.lease import Lease

LOOK_SECONDS = 0.5  # between two looks for other jobs
MAX_PAUSE_SECONDS = 0.5

log = logging.getLogger(__name__)


class CheckJobs:
    """Checks the files: all for presence, and those of this machine for their content.

    It reads at most half of the time, and gives its thread to any other job that waits for one.
    What was read is in the database, so the next job goes on where this one ended.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Check files for some minutes, or until none is due."""
        with cancelable(self._database, lease, stopping) as progress:
            pace = _Pace(progress, stopping, give_way=lambda: give_way(self._database, job))
            check = StoreCheck(self._database, self._store, on_chunk=pace.on_chunk)
            stored = check.find_missing()
            local = stored if self._store.is_local else ()
            due = dict.fromkeys(
                (*check.suspects, *check.due(local, before=utcnow() - READ_INTERVAL))
            )
            left = check.read(list(due), seconds=SLICE_SECONDS)
            check.order_thumbnails()
            if check.problems:
                log.warning("%s stored files are damaged or missing.", len(check.problems))
            result = CheckFilesResult(
                files=check.files_read,
                size_bytes=check.bytes_read,
                problems=len(check.problems),
                left=left,
            )
            with self._database.write() as session:
                succeed(session, lease, result)


class _Pace:
    """Pauses for as long as was read, reports progress, and lets other jobs go first."""

    def __init__(
        self,
        progress: JobProgress,
        stopping: threading.Event,
        *,
        give_way: Callable[[], None],
    ) -> None:
        self._give_way = give_way
        self._progress = progress
        self._stopping = stopping
        self._looked_at = 0.0
        self._read_from = time.monotonic()

    def on_chunk(self, size: int) -> None:
        """Called with the bytes that were just read."""
        self._progress(0, 1)
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._give_way()
        if size:
            self._stopping.wait(min(now - self._read_from, MAX_PAUSE_SECONDS))
        self._read_from = time.monotonic()
