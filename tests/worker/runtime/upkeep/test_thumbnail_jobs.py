"""The io worker makes missing thumbnails once, and lets other jobs go first."""

from __future__ import annotations

import io
import threading

import pytest
from PIL import Image as Picture
from sqlmodel import select

from app.registry.datasets import measures
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs.service import claim_next, enqueue
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Image, ImageMeasure
from app.registry.tables.jobs import IoJob
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease
from worker.runtime.upkeep import clock, thumbnail_jobs


def picture(number: int, side: int = 600) -> bytes:
    content = io.BytesIO()
    gradient = Picture.linear_gradient("L").resize((side, side))
    Picture.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(9 * number))).save(
        content, "PNG"
    )
    return content.getvalue()


@pytest.fixture
def shown(registry: Registry) -> list[str]:
    """The images of a dataset from an older version: three good ones, a damaged and a lost one."""
    hashes = [registry.store.put_bytes(picture(number)).sha256 for number in range(3)]
    hashes += [registry.store.put_bytes(picture(3)[:900]).sha256, "0" * 64]
    with registry.database.write() as session:
        for number, sha256 in enumerate(hashes):
            session.add(
                Image(
                    dataset_id=registry.dataset_id,
                    sha256=f"{number}" * 64,
                    clean_sha256=sha256,
                    thumbnail_sha256=sha256,
                    filename="x",
                    width=600,
                    height=600,
                    size_bytes=1,
                )
            )
    return hashes


@pytest.fixture
def io_jobs(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images whose thumbnails were made."""
    seen: list[str] = []
    real = thumbnail_jobs.remake_thumbnails

    def counted(store: object, sha256: str) -> Thumbnail:
        seen.append(sha256)
        return real(store, sha256)  # type: ignore[arg-type]

    monkeypatch.setattr(thumbnail_jobs, "remake_thumbnails", counted)
    return seen


def claim_and_run(registry: Registry, work: IoJobs, stopping: threading.Event) -> IoJob:
    with registry.database.write() as session:
        job, claim = claim_next(session, IoJob, lease_seconds=5) or pytest.fail("no job")
    with Lease(registry.database, IoJob, claim, seconds=5) as lease:
        work.run(job, lease, stopping)
    found: IoJob = registry.row(IoJob, claim.job_id)
    return found


def test_a_worker_makes_what_older_images_lack(
    registry: Registry,
    shown: list[str],
    made: list[str],
    io_jobs: IoJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "FIRST_LOOK_SECONDS", 0.01)
    with registry.working(io_jobs) as loop:
        (job,) = wait_for(lambda: registry.rows(IoJob, kind=JobKind.MAKE_THUMBNAILS))
        loop.wake()
        done = registry.until_final(IoJob, job.key)
    assert (done.status, done.result) == ("succeeded", {"done": 10, "total": 10})
    rows = {row.sha256: row for row in _thumbnails(registry)}
    assert set(rows) == set(shown)
    for sha256 in shown[:3]:
        sizes = [
            _size(registry, rows[sha256].small_sha256),
            _size(registry, rows[sha256].large_sha256),
        ]
        assert sizes == [(256, 256), (512, 512)]
    for sha256 in shown[3:]:
        assert (rows[sha256].small_sha256, rows[sha256].large_sha256) == (None, None)
    assert sorted(made) == sorted(shown)
    with registry.database.read() as session:
        measured = {row.clean_sha256: row for row in session.exec(select(ImageMeasure))}
    assert set(measured) == set(shown)
    assert all(measured[sha256].perceptual_hash for sha256 in shown[:3])
    assert measured[shown[0]].has_transparency is False
    assert [measured[sha256].sharpness for sha256 in shown[3:]] == [None, None]
    assert measures.order_if_due(registry.database) is None  # also not for the damaged one


def test_it_gives_its_thread_to_other_jobs_and_continues_where_it_was(
    registry: Registry,
    shown: list[str],
    made: list[str],
    io_jobs: IoJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measures.order_if_due(registry.database) is not None
    saved = thumbnail_jobs.thumbnails.save

    def order_another(session: object, rows: list[Thumbnail]) -> None:
        saved(session, rows)  # type: ignore[arg-type]
        if len(made) == 2:
            enqueue(session, IoJob(kind="unheard_of"))  # type: ignore[arg-type]

    monkeypatch.setattr(thumbnail_jobs.thumbnails, "save", order_another)
    stopping = threading.Event()
    first = claim_and_run(registry, io_jobs, stopping)
    assert (first.kind, first.status, first.attempt) == (JobKind.MAKE_THUMBNAILS, "queued", 0)
    assert len(_thumbnails(registry)) == 2
    assert claim_and_run(registry, io_jobs, stopping).kind == "unheard_of"
    last = claim_and_run(registry, io_jobs, stopping)
    assert (last.key, last.status, last.result) == (first.key, "succeeded", {"done": 8, "total": 8})
    assert sorted(made) == sorted(shown)  # each once


def test_a_stopping_worker_returns_the_job(
    registry: Registry, shown: list[str], made: list[str], io_jobs: IoJobs
) -> None:
    assert measures.order_if_due(registry.database) is not None
    stopping = threading.Event()
    stopping.set()
    job = claim_and_run(registry, io_jobs, stopping)
    assert (job.status, job.attempt, made) == ("queued", 0, [])


def _thumbnails(registry: Registry) -> list[Thumbnail]:
    with registry.database.read() as session:
        return list(session.exec(select(Thumbnail)))


def _size(registry: Registry, sha256: str | None) -> tuple[int, int]:
    assert sha256 is not None
    with registry.store.open(sha256) as file:
        return Picture.open(file).size
