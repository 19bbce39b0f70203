"""Drafts: a newer one of the same slot replaces them, lists leave them out, an hour ends them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.db import Database, utcnow
from app.registry.deletion import renders as deletion_of_drafts
from app.registry.errors import InvalidInput, NotFound
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import drafts, listing
from app.registry.renders.plan import plan_render
from app.registry.renders.requests import RenderRequest
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderAdapter, RenderImage
from tests.fake_workers import weighted


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def adapter(database: Database, ready_base: None) -> int:
    with database.write() as session:
        new = NewVersion("Chalk", "sd1", "1" * 64, 1, 4, 4.0, base_model_id=1)
        return publish(session, new).adapter_id


def draft(
    database: Database, store: BlobStore, adapter: int, weight: float, slot: str = "tab"
) -> Render:
    stack = [weighted(adapter, weight)]
    request = RenderRequest(prompt="a fox", seed=7, adapters=stack, twin=True)
    with database.write() as session:
        return drafts.create_draft(session, request, store, slot=slot)


def of(database: Database, render: Render) -> Render:
    with database.read() as session:
        return session.get_one(Render, render.key)


def status(database: Database, render: Render) -> str:
    return of(database, render).status


def claim(database: Database) -> tuple[Render, jobs.Claim]:
    with database.write() as session:
        found = jobs.claim_next(session, Render, lease_seconds=30)
        assert found is not None
        return found


def test_a_draft_replaces_what_is_unfinished_in_its_slot_alone(
    database: Database, store: BlobStore, adapter: int
) -> None:
    running = draft(database, store, adapter, 0.1)
    other = draft(database, store, adapter, 0.1, slot="another tab")
    row, _ = claim(database)
    assert row.key == running.key
    waiting = draft(database, store, adapter, 0.2)
    newest = draft(database, store, adapter, 0.3)
    assert of(database, running).cancel_requested
    assert status(database, waiting) == JobStatus.CANCELED
    with database.read() as session:
        drawn = [session.get_one(Render, row.twin_id) for row in (running, waiting, newest)]
    assert [twin.status for twin in drawn] == ["canceled", "canceled", "queued"]
    assert (status(database, newest), status(database, other)) == ("queued", "queued")


def test_a_replaced_draft_leaves_its_place_in_the_queue(
    database: Database, store: BlobStore, adapter: int
) -> None:
    draft(database, store, adapter, 0.1)
    other = draft(database, store, adapter, 0.1, slot="another tab")
    newest = draft(database, store, adapter, 0.2)
    order = [claim(database)[0].key for _ in range(3)]
    assert order == [newest.key, newest.twin_id, other.key]


def test_a_request_that_is_refused_cancels_nothing(
    database: Database, store: BlobStore, adapter: int
) -> None:
    first = draft(database, store, adapter, 0.1)
    with database.write() as session, pytest.raises(InvalidInput):
        drafts.create_draft(session, RenderRequest(prompt=""), store, slot="tab")
    assert status(database, first) == JobStatus.QUEUED


def test_a_base_model_that_is_deleted_after_the_plan_is_missed(
    database: Database, store: BlobStore, ready_base: None
) -> None:
    with database.read() as session:
        plan = plan_render(session, RenderRequest(prompt="a fox"))
    with database.write() as session:
        session.delete(session.get_one(BaseModel, plan.base.key))
    with database.write() as session, pytest.raises(NotFound, match="does not exist"):
        drafts.store_draft(session, plan, store, slot="tab")


def finish(database: Database, *, ago: timedelta = timedelta()) -> None:
    """End every queued render with an image of its own."""
    while True:
        with database.write() as session:
            claimed = jobs.claim_next(session, Render, lease_seconds=30)
            if claimed is None:
                return
            row, owned = claimed
            session.add(RenderImage(render_id=row.key, index=0, seed=7, sha256=f"{row.key:064x}"))
            jobs.finish(session, Render, owned, JobStatus.SUCCEEDED, seconds=2.0)
            session.get_one(Render, row.key, populate_existing=True).finished_at = utcnow() - ago


def listed(database: Database, adapter: int) -> tuple[list[int], list[int]]:
    with database.read() as session:
        shown = listing.recent_renders(session), listing.adapter_renders(session, adapter)
    recent, on_page = ([row.key for row in rows] for rows in shown)
    return recent, on_page


def test_a_draft_is_in_no_list_until_it_is_kept(
    database: Database, store: BlobStore, adapter: int
) -> None:
    render = draft(database, store, adapter, 0.1)
    finish(database)
    assert listed(database, adapter) == ([], [])
    with database.write() as session:
        for _ in range(2):
            drafts.keep_draft(session, render.key)
    assert listed(database, adapter) == ([render.key], [render.key])
    with database.read() as session:
        twin = session.get_one(Render, render.twin_id)
    assert twin.draft_slot is None


def test_drafts_are_deleted_an_hour_after_their_end_but_no_cover_of_an_adapter(
    database: Database, store: BlobStore, adapter: int
) -> None:
    old, kept, cover = (draft(database, store, adapter, 0.1, slot=name) for name in "abc")
    with database.read() as session:
        assert not deletion_of_drafts.is_due(session)
    finish(database, ago=timedelta(minutes=61))
    young = draft(database, store, adapter, 0.4, slot="d")
    finish(database)
    with database.write() as session:
        drafts.keep_draft(session, kept.key)
        session.get_one(Adapter, adapter).cover_sha256 = f"{cover.key:064x}"
    (job, again) = (deletion_of_drafts.order_if_due(database) for _ in range(2))
    assert job is not None
    assert (job.kind, again) == (JobKind.DELETE_DRAFTS, None)
    with database.write() as session:
        deletion = deletion_of_drafts.delete_old_drafts(session)
    assert deletion.files == {f"{key:064x}" for key in (old.key, old.twin_id)}
    with database.read() as session:
        left = set(session.exec(select(Render.id)))
        links = set(session.exec(select(RenderAdapter.render_id)))
        assert session.exec(select(IoJob.id).where(IoJob.kind == job.kind)).all() == [job.key]
    mains = {kept.key, cover.key, young.key}
    assert (left & {old.key, *mains}, links) == (mains, mains)


def test_the_time_of_an_image_is_known_from_earlier_ones_of_its_base(
    database: Database, store: BlobStore, adapter: int
) -> None:
    render = draft(database, store, adapter, 0.1)
    size = {"width": 2 * render.width, "height": render.height}
    with database.read() as session:
        base = session.get_one(BaseModel, render.base_model_id)
        assert drafts.expected_seconds(session, base, steps=20, **size) is None
    finish(database)  # in two seconds, 20 steps each
    with database.read() as session:
        assert drafts.expected_seconds(session, base, steps=40, **size) == 8.0


def test_a_preview_goes_with_any_change_of_the_status(
    database: Database, store: BlobStore, adapter: int
) -> None:
    render = draft(database, store, adapter, 0.1)
    for _ in range(2):
        _, owned = claim(database)
        with database.write() as session:
            jobs.update_owned(session, Render, owned, preview=b"webp")
        assert of(database, render).preview == b"webp"
        with database.write() as session:
            jobs.give_back(session, Render, owned)
        assert of(database, render).preview is None
