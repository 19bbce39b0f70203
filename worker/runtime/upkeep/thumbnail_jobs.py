"""Thumbnail jobs of the io worker: make the thumbnails and measures that older images lack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.registry.blobs import thumbnails
from app.registry.blobs.make_thumbnails import remake_thumbnails
from app.registry.datasets.measures import service as measures
from app.registry.db import Database
from app.registry.job_kinds.kinds import MakeThumbnailsResult
from app.registry.storage.store import BlobStore
from app.registry.tables.jobs import IoJob
from worker.runtime.job_progress import JobProgress, cancelable, give_way, succeed
from worker.runtime.lease import Lease

IMAGES_AT_ONCE = 100  # hashes looked up together
MAX_PAUSE_SECONDS = 0.5


class ThumbnailJobs:
    """Makes missing thumbnails and measures, one image after another, each stored at once.

    It uses at most half of a core, and gives its thread to any other job that waits for one.
    """

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Make thumbnails and measures until none is missing."""
        with cancelable(self._database, lease, stopping) as progress:
            made = self._make_missing(job, progress, stopping)
            with self._database.write() as session:
                succeed(session, lease, MakeThumbnailsResult(done=made, total=made))

    def _make_missing(self, job: IoJob, progress: JobProgress, stopping: threading.Event) -> int:
        """Make what is missing until nothing is; return the number of things made."""
        with self._database.read() as session:
            total = thumbnails.count_missing(session) + measures.count_unmeasured(session)
        done = 0
        for make, sha256 in self._missing():
            progress(done, max(total, done))
            give_way(self._database, job)
            started = time.monotonic()
            make(sha256)
            done += 1
            stopping.wait(min(time.monotonic() - started, MAX_PAUSE_SECONDS))
        return done

    def _missing(self) -> Iterator[tuple[Callable[[str], None], str]]:
        """The images that lack something, with what makes it, until none does."""
        for list_missing, make in (
            (thumbnails.list_missing, self._make_thumbnails),
            (measures.list_unmeasured, self._measure),
        ):
            while missing := self._list(list_missing):
                for sha256 in missing:
                    yield make, sha256

    def _list(self, list_missing: Callable[..., list[str]]) -> list[str]:
        with self._database.read() as session:
            return list_missing(session, limit=IMAGES_AT_ONCE)

    def _make_thumbnails(self, sha256: str) -> None:
        made = remake_thumbnails(self._store, sha256)
        with self._database.write() as session:
            thumbnails.save(session, [made])

    def _measure(self, sha256: str) -> None:
        measured = measures.measure_stored(self._store, sha256)
        with self._database.write() as session:
            measures.save(session, sha256, measured)
