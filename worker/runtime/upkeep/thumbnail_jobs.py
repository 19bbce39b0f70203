"""Thumbnail jobs of the io worker: make the thumbnails and measures that older images lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from app.registry.blobs import thumbnails
from app.registry.blobs.make_thumbnails import remake_thumbnails
from app.registry.datasets import measures
from worker.runtime.job_progress import IoWork

AT_ONCE = 100  # rows looked up together


def run(work: IoWork) -> None:
    """Make missing thumbnails and measures, one image after another, each stored at once."""
    with work.database.read() as session:
        total = thumbnails.count_missing(session) + measures.count_unmeasured(session)
    tasks = missing_tasks(
        work, (thumbnails.list_missing, _make_thumbnails), (measures.list_unmeasured, _measure)
    )
    work.carry_out(tasks, total=total)


def missing_tasks(
    work: IoWork, *kinds: tuple[Callable[..., Sequence[Any]], Callable[[IoWork, Any], None]]
) -> Iterator[Callable[[], None]]:
    """Makes what is missing, until nothing is; a kind lists it and makes each."""
    for list_missing, make in kinds:
        while missing := _list(work, list_missing):
            yield from (partial(make, work, one) for one in missing)


def _list(work: IoWork, list_missing: Callable[..., Sequence[Any]]) -> Sequence[Any]:
    with work.database.read() as session:
        return list_missing(session, limit=AT_ONCE)


def _make_thumbnails(work: IoWork, sha256: str) -> None:
    made = remake_thumbnails(work.store, sha256)
    with work.database.write() as session:
        thumbnails.save(session, [made])


def _measure(work: IoWork, sha256: str) -> None:
    measured = measures.measure_stored(work.store, sha256)
    with work.database.write() as session:
        measures.save(session, sha256, measured)
