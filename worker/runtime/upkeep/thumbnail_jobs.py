"""Thumbnail jobs of the io worker: make the thumbnails and measures that older images lack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from app.registry.blobs import thumbnails
from app.registry.blobs.make_thumbnails import remake_thumbnails
from app.registry.datasets.measures import service as measures
from app.registry.job_kinds.kinds import MakeThumbnailsResult
from worker.runtime.job_progress import IoWork

IMAGES_AT_ONCE = 100  # hashes looked up together
MAX_PAUSE_SECONDS = 0.5


def run(work: IoWork) -> None:
    """Make missing thumbnails and measures, one image after another, each stored at once.

    It uses at most half of a core, and gives its thread to any other job that waits for one.
    """
    with work.cancelable() as progress:
        with work.database.read() as session:
            total = thumbnails.count_missing(session) + measures.count_unmeasured(session)
        done = 0
        for make, sha256 in _missing(work):
            progress(done, max(total, done))
            work.give_way()
            started = time.monotonic()
            make(work, sha256)
            done += 1
            work.stopping.wait(min(time.monotonic() - started, MAX_PAUSE_SECONDS))
        work.succeed(MakeThumbnailsResult(done=done, total=done))


def _missing(work: IoWork) -> Iterator[tuple[Callable[[IoWork, str], None], str]]:
    """The images that lack something, with what makes it, until none does."""
    for list_missing, make in (
        (thumbnails.list_missing, _make_thumbnails),
        (measures.list_unmeasured, _measure),
    ):
        while missing := _list(work, list_missing):
            for sha256 in missing:
                yield make, sha256


def _list(work: IoWork, list_missing: Callable[..., list[str]]) -> list[str]:
    with work.database.read() as session:
        return list_missing(session, limit=IMAGES_AT_ONCE)


def _make_thumbnails(work: IoWork, sha256: str) -> None:
    made = remake_thumbnails(work.store, sha256)
    with work.database.write() as session:
        thumbnails.save(session, [made])


def _measure(work: IoWork, sha256: str) -> None:
    measured = measures.measure_stored(work.store, sha256)
    with work.database.write() as session:
        measures.save(session, sha256, measured)
