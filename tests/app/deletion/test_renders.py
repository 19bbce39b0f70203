"""Renders of the playground are deleted for good, one by one or all, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.db import utcnow
from app.registry.deletion import renders as deletion
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import PublishAdapterArgs, PublishedImage
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue_io
from app.registry.renders import covers, listing, removal, service
from app.registry.renders.requests import RenderRequest
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderAdapter, RenderImage
from tests import fake_workers
from tests.app.deletion.conftest import SECRET, Registry


def make(registry: Registry, *, adapter: int | None = None, seed: int = 1) -> Render:
    """A render that has ended; with an adapter, it has a twin."""
    used = [fake_workers.weighted(adapter)] if adapter else []
    request = RenderRequest(prompt=SECRET, seed=seed, adapters=used, twin=bool(adapter))
    with registry.database.write() as session:
        render = service.create_render(session, request, registry.state.store)
    fake_workers.draw(registry.state)
    return render


def delete(registry: Registry, render: Render) -> object:
    return registry.delete(lambda session: deletion.delete_render(session, render.key))


def images_of(registry: Registry, render: Render) -> list[str]:
    with registry.database.read() as session:
        return [image.sha256 for image in service.render_images(session, render.key)]


def test_nothing_is_left_of_a_render_and_its_twin(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state)
    render = make(registry, adapter=adapter.key)
    freed = registry.delete(lambda session: deletion.delete_render(session, render.key))
    assert freed.goes == ("1 render", "1 image without adapters")
    assert freed.files == 2
    with registry.database.read() as session:
        for table in (Render, RenderImage, RenderAdapter):
            assert session.exec(select(table)).all() == []
        assert listing.adapter_renders(session, adapter.key) == []
    assert f"'{SECRET}'" not in registry.texts().replace("caption", "")
    with pytest.raises(NotFound, match="for good already"):
        delete(registry, render)


def test_a_twin_alone_leaves_the_other(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state)
    render = make(registry, adapter=adapter.key)
    registry.delete(lambda session: deletion.delete_render(session, render.twin_id or 0))
    with registry.database.read() as session:
        assert session.get_one(Render, render.key).twin_id is None


def test_one_that_is_being_generated_is_refused(registry: Registry) -> None:
    with registry.database.write() as session:
        request = RenderRequest(prompt="x")
        render = service.create_render(session, request, registry.state.store)
    with pytest.raises(Conflict, match=r"still being generated. Cancel it first"):
        delete(registry, render)


def test_an_equal_render_and_a_cover_keep_the_image(registry: Registry) -> None:
    fake_workers.dataset(registry.state)
    first = make(registry)
    second = make(registry)  # from the cache
    assert images_of(registry, first) == images_of(registry, second)
    freed = registry.delete(lambda session: deletion.delete_render(session, first.key))
    assert (freed.files, freed.stays) == (0, ("1 file stays: another render shows it.",))
    with registry.database.write() as session:
        cover = images_of(registry, second)[0] if registry.database.is_sqlite else None
        cover = cover or service.render_images(session, second.key)[0].sha256
        session.add(Adapter(slug="x", name="x", base_family="sd1", cover_sha256=cover))
    freed = registry.delete(lambda session: deletion.delete_render(session, second.key))
    assert freed.stays == ("1 file stays: it is the cover of an adapter.",)
    third = make(registry)
    assert not third.from_cache


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.SUCCEEDED])
def test_a_publication_forgets_its_prompt_once_it_has_ended(
    registry: Registry, status: JobStatus
) -> None:
    render = make(registry)
    (sha256,) = images_of(registry, render)
    args = PublishAdapterArgs(
        repo="me/x",
        update=False,
        private=True,
        base_model="",
        pictures=(PublishedImage(sha256=sha256, prompt=SECRET),),
    )
    with registry.database.write() as session:
        job = enqueue_io(session, args, subject_id=1)
        job.status, job.finished_at = status, utcnow()
    if status is JobStatus.QUEUED:
        with pytest.raises(Conflict, match="being published"):
            delete(registry, render)
        return
    freed = registry.delete(lambda session: deletion.delete_render(session, render.key))
    assert freed.files == 1
    with registry.database.read() as session:
        assert session.get_one(IoJob, job.key).args["pictures"] == []
    assert SECRET not in registry.texts()


def test_all_that_have_ended_or_only_old_ones_without_covers(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state)
    old, cover, new = (make(registry, adapter=adapter.key, seed=seed) for seed in (1, 2, 3))
    (shown,) = images_of(registry, cover)
    with registry.database.write() as session:
        session.get_one(Adapter, adapter.key).cover_sha256 = shown
        for render in (old, cover):
            row = session.get_one(Render, render.key)
            row.finished_at = utcnow() - timedelta(days=9)
            session.get_one(Render, row.twin_id).finished_at = row.finished_at
        waits = RenderRequest(prompt="x", seed=99)
        waiting = service.create_render(session, waits, registry.state.store)
    week_ago = utcnow() - timedelta(days=7)

    def remove(keys: list[int]) -> object:
        return registry.delete(
            lambda session: deletion.delete_renders(session, keys, title="renders")
        )

    with registry.database.read() as session:
        assert deletion.ended_renders(session, before=week_ago) == sorted(
            [old.twin_id or 0, old.key]
        )
        everything = deletion.ended_renders(session, keep_covers=False)
        keys = deletion.ended_renders(session)
    assert set(everything) - set(keys) == {cover.key, cover.twin_id}
    remove(keys)
    with registry.database.read() as session:
        left = {row.key for row in session.exec(select(Render))}
    assert left == {cover.key, cover.twin_id, waiting.key}
    assert new.key not in left


def test_a_deleted_render_is_in_no_list_and_comes_back_as_the_cover(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state)
    render, same = make(registry, adapter=adapter.key), make(registry, adapter=adapter.key)
    (image,) = images_of(registry, render)
    with registry.database.write() as session:
        covers.choose_cover(session, adapter.key, image)
        removal.delete_render(session, same.key)  # both have the same image
    with registry.database.write() as session:
        row = session.get_one(Adapter, adapter.key)
        sample = covers.usual_cover(session, row)
        assert row.cover_sha256 == sample != image
        assert listing.adapter_renders(session, adapter.key) == []
        assert listing.recent_renders(session) == []
        assert [one.image.sha256 for one in removal.list_deleted(session, adapter.key)] == [image]
        with pytest.raises(InvalidInput, match="generated with this adapter"):
            covers.choose_cover(session, adapter.key, image)
        removal.delete_render(session, render.key)  # twice is no error
        removal.restore_render(session, render.key)
        assert row.cover_sha256 == image
        assert len(listing.recent_renders(session)) == 2
        removal.delete_render(session, render.key)
        covers.choose_cover(session, adapter.key, None)
    freed = registry.delete(deletion.delete_deleted_renders)
    assert freed.goes == ("2 renders", "2 images without adapters")
    assert freed.files == 2
    with registry.database.read() as session:
        assert session.get_one(Adapter, adapter.key).cover_sha256 == sample


def test_a_cover_chosen_since_stays_and_an_imported_one_is_not_lost(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state)
    render = make(registry, adapter=adapter.key)
    (image,) = images_of(registry, render)
    imported = registry.blob("imported cover")
    with registry.database.write() as session:
        session.get_one(Adapter, adapter.key).cover_sha256 = imported
    with registry.database.write() as session:
        covers.choose_cover(session, adapter.key, image)
        removal.delete_render(session, render.key)
        row = covers.choose_cover(session, adapter.key, imported)
        removal.restore_render(session, render.key)
        assert (row.cover_sha256, row.imported_cover_sha256) == (imported, imported)
        sample = covers.usual_cover(session, row)
        assert sample not in (None, imported)
        new = NewVersion("", "sd1", registry.blob("resized"), 7, 4, 4.0)
        publish(session, new, adapter_id=adapter.key)  # a version in use without samples
        assert covers.usual_cover(session, row) == sample
