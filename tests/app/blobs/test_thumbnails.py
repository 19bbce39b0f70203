"""Thumbnails in both databases: which images lack them, and which nobody shows any more."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from sqlmodel import Session, select

from app.registry.base_models.service import ensure_embedded
from app.registry.blobs import thumbnails as service
from app.registry.datasets import measures
from app.registry.db import Database, utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import Adapter
from app.registry.tables.blobs import Thumbnail, ThumbnailSize
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderImage
from app.registry.tables.runs import Run, Sample

RENDER, SAMPLE, COVER, IMAGE = (letter * 64 for letter in "abcd")
SMALL, LARGE = "e" * 64, "f" * 64


def show_images(session: Session) -> None:
    """One image in every table whose images are shown small; the cover is a sample too."""
    base = ensure_embedded(session).key
    dataset = Dataset(slug="x", name="x")
    session.add(dataset)
    session.flush()
    pinned = DatasetVersion(dataset_id=dataset.key, fingerprint="x", image_count=1, items=[])
    values = {"prompt": "x", "seed": 1, "steps": 1, "guidance": 1.0, "width": 64, "height": 64}
    render = Render(base_model_id=base, cache_key="x", **values)
    sizes = {"width": 1, "height": 1, "size_bytes": 1}
    session.add(
        Image(
            dataset_id=dataset.key,
            filename="x",
            sha256="0" * 64,
            clean_sha256="1" * 64,
            thumbnail_sha256=IMAGE,
            **sizes,
        )
    )
    session.add(Adapter(slug="x", name="x", base_family="sd1", cover_sha256=COVER))
    session.add(Adapter(slug="y", name="y", base_family="sd1"))
    session.add(pinned)
    session.add(render)
    session.flush()
    run = Run(
        name="x",
        dataset_id=dataset.key,
        dataset_version_id=pinned.key,
        base_model_id=base,
        config={},
        total_steps=1,
    )
    session.add(run)
    session.flush()
    session.add(RenderImage(render_id=render.key, index=0, seed=1, sha256=RENDER))
    session.add(RenderImage(render_id=render.key, index=1, seed=1, sha256=RENDER))
    for index, sha256 in enumerate((SAMPLE, COVER)):
        session.add(
            Sample(run_id=run.key, step=0, prompt_index=index, prompt="", seed=1, sha256=sha256)
        )


def test_thumbnails_are_stored_once_for_an_image_and_replaced(database: Database) -> None:
    with database.write() as session:
        service.save(session, [Thumbnail(sha256=RENDER), Thumbnail(sha256=SAMPLE)])
        service.save(session, [Thumbnail(sha256=RENDER, small_sha256=SMALL, large_sha256=LARGE)])
    with database.read() as session:
        found, whole = service.find(session, RENDER), service.find(session, SAMPLE)
        assert service.find(session, COVER) is None
        assert len(session.exec(select(Thumbnail)).all()) == 2
    assert found is not None
    assert whole is not None
    assert [found.shown(size) for size in ThumbnailSize] == [SMALL, LARGE]
    assert [whole.shown(size) for size in ThumbnailSize] == [SAMPLE, SAMPLE]


def test_images_that_are_shown_small_and_have_none_are_listed_once(database: Database) -> None:
    with database.write() as session:
        assert service.list_missing(session, limit=9) == []
        show_images(session)
        assert sorted(service.list_missing(session, limit=9)) == [RENDER, SAMPLE, COVER, IMAGE]
        assert len(service.list_missing(session, limit=2)) == 2
        assert service.count_missing(session) == 5  # the cover counts twice
        service.save(session, [Thumbnail(sha256=sha256) for sha256 in (RENDER, COVER, IMAGE)])
        assert service.list_missing(session, limit=9) == [SAMPLE]
        assert service.count_missing(session) == 1


def test_thumbnails_of_images_that_no_row_shows_are_deleted(database: Database) -> None:
    shown = (RENDER, SAMPLE, COVER, IMAGE)
    with database.write() as session:
        show_images(session)
        service.save(session, [Thumbnail(sha256=sha256) for sha256 in (*shown, SMALL)])
        service.delete_unused(session)
        assert set(session.exec(select(Thumbnail.sha256))) == set(shown)
        for row in session.exec(select(RenderImage)):
            session.delete(row)
        service.delete_unused(session)
        assert set(session.exec(select(Thumbnail.sha256))) == {SAMPLE, COVER, IMAGE}


def test_a_job_is_ordered_where_thumbnails_are_missing(database: Database) -> None:
    assert measures.order_if_due(database) is None
    with database.write() as session:
        show_images(session)
    barrier = threading.Barrier(4)

    def race(_: int) -> IoJob | None:
        barrier.wait()
        return measures.order_if_due(database)

    with ThreadPoolExecutor(4) as pool:
        assert sum(job is not None for job in pool.map(race, range(4))) == 1
    with database.read() as session:
        (job,) = session.exec(select(IoJob).where(IoJob.kind == JobKind.MAKE_THUMBNAILS))
    assert job.priority == measures.BACKFILL_PRIORITY
    for status, hours, is_due in (
        (JobStatus.RUNNING, 0, False),
        (JobStatus.FAILED, 23, False),
        (JobStatus.FAILED, 25, True),
        (JobStatus.SUCCEEDED, 1, True),
    ):
        with database.write() as session:
            row = session.get_one(IoJob, job.key)
            row.status, row.finished_at = status, utcnow() - timedelta(hours=hours)
            session.add(row)
        with database.read() as session:
            assert measures.is_due(session) == is_due
