"""The gallery of renders: search, filters, stars, deletion of many; on SQLite and PostgreSQL."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from sqlmodel import select

from app.registry.base_models.precisions import record_choice
from app.registry.comparison.renders import compare_renders
from app.registry.db import Database
from app.registry.errors import Conflict, InvalidInput, NotFound, TooLarge
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import removal, selection, service
from app.registry.renders.gallery import GalleryFilter, adapter_choices, gallery_page
from app.registry.renders.requests import RenderRequest
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, BasePrecision
from app.registry.tables.renders import Render, RenderImage
from app.registry.zip_stream import archive_chunks
from tests.fake_workers import weighted


@pytest.fixture
def store(tmp_path: Any) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def chalk(database: Database, ready_base: None) -> int:
    with database.write() as session:
        row = Adapter(slug="chalk", name="Chalk", base_family="sd1", trigger_words=["Kreide"])
        session.add(row)
        session.flush()
        version = AdapterVersion(adapter_id=row.key, version=1, sha256="1" * 64, size_bytes=1)
        version.rank, version.alpha, version.base_model_id = 4, 4.0, 1
        session.add(version)
    return row.key


def draw(database: Database, store: LocalBlobStore, prompt: str, **wishes: Any) -> int:
    """A finished render with images; its id."""
    with database.write() as session:
        render = service.create_render(session, RenderRequest(prompt=prompt, **wishes), store)
        while claimed := jobs.claim_next(session, Render, lease_seconds=30):
            row, claim = claimed
            for index in range(row.count):
                sha256 = store.put_bytes(f"{row.cache_key} {index}".encode()).sha256
                session.add(
                    RenderImage(render_id=row.key, index=index, seed=row.seed, sha256=sha256)
                )
            jobs.finish(session, Render, claim, JobStatus.SUCCEEDED)
    return render.key


def shown(database: Database, q: str = "", page: int = 1, **filters: Any) -> list[int]:
    with database.read() as session:
        found = gallery_page(session, GalleryFilter(q=q, **filters), page)
    assert found.total == len(found.items) or found.pages > 1 or page > 1
    return [item.render.key for item in found.items]


def test_the_gallery_shows_each_image_once_without_twins_newest_first(
    database: Database, store: LocalBlobStore, chalk: int
) -> None:
    old = draw(database, store, "a fox", seed=1)
    new = draw(database, store, "a boat", seed=1, adapters=[weighted(chalk)], twin=True)
    again = draw(database, store, "a fox", seed=1)
    draw(database, store, "a fox", seed=1, adapters=[weighted(chalk)], twin=True)
    with database.write() as session:
        service.create_render(session, RenderRequest(prompt="it waits"), store)
    assert shown(database)[1:] == [again, new]
    with database.write() as session:
        removal.delete_render(session, again)
        assert removal.get_render(session, old).deleted_at is not None


def test_a_search_finds_words_of_the_prompt_and_of_the_adapters(
    database: Database, store: LocalBlobStore, chalk: int
) -> None:
    fox = draw(database, store, "a Füchslein in the snow")
    boat = draw(database, store, "a boat", adapters=[weighted(chalk)])
    assert shown(database, "fuchs") == [fox]
    assert shown(database, "CHALK") == shown(database, "kreide boat") == [boat]
    assert shown(database, "a") == [boat, fox]
    for nothing in ("kreide snow", "%", "\x00", "  ! "):
        assert shown(database, nothing) == []
    assert shown(database, "  ") == [boat, fox]
    with database.write() as session:
        session.get_one(Adapter, chalk).name = "Slate"
    assert shown(database, "slate") == shown(database, "chalk") == [boat]
    assert shown(database, adapter="chalk") == [boat]
    assert shown(database, adapter="nobody") == []
    with database.write() as session:  # as older versions named an adapter “1984”
        session.get_one(Adapter, chalk).slug = "1984"
    assert shown(database, adapter="1984") == [boat]
    with database.read() as session:
        choices = adapter_choices(session, "nobody")
    assert [choice.label for choice in choices] == ["nobody (unknown)", "Slate"]


def test_a_star_stays_when_the_same_image_is_asked_for_again(
    database: Database, store: LocalBlobStore, chalk: int
) -> None:
    with database.write() as session:
        (base,) = session.exec(select(BaseModel))
        choice = BasePrecision(base_model_id=base.key, machine="cpu", precision="fp32")
        choice.fingerprint = base.fingerprint
        record_choice(session, choice)
    first = draw(database, store, "a fox", seed=1)
    second = draw(database, store, "a boat", seed=1)
    with database.write() as session:
        selection.star_chosen(session, [first], starred=True)
    assert shown(database, starred=True) == [first]
    again = draw(database, store, "a fox", seed=1)
    assert shown(database, starred=True) == [again]
    with database.write() as session:
        selection.star_chosen(session, [again, second], starred=False)
        assert not session.get_one(Render, first).starred
    assert shown(database, starred=True) == []


def test_many_are_deleted_and_restored_at_once_or_not_at_all(
    database: Database, store: LocalBlobStore, chalk: int
) -> None:
    keys = [draw(database, store, f"number {number}") for number in range(50)]
    assert len(shown(database)) == 48
    assert shown(database, page=2) == [keys[1], keys[0]]
    with database.write() as session:
        waiting = service.create_render(session, RenderRequest(prompt="it waits"), store).key
    for ids, kind, words in (
        ([], InvalidInput, "Choose an image first"),
        (list(range(1, 10_001)), InvalidInput, "at most 200 images at once; these are 10,000"),
        ([keys[0], 998, 999], NotFound, "No image has the id 998, 999"),
        ([keys[0], waiting], Conflict, "still being generated"),
    ):
        with pytest.raises(kind, match=words), database.write() as session:
            selection.delete_chosen(session, ids)
    assert shown(database, page=2) == [keys[1], keys[0]]
    with database.write() as session:
        selection.delete_chosen(session, keys[1:])
    assert shown(database) == [keys[0]]
    assert shown(database, page=2, deleted=True) == [keys[1]]
    with database.write() as session:
        selection.restore_chosen(session, keys[1:])
    assert shown(database, page=2) == [keys[1], keys[0]]


def test_a_zip_has_every_image_and_refuses_what_it_cannot_have(
    database: Database, store: LocalBlobStore, chalk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, four = draw(database, store, "a fox"), draw(database, store, "a boat", count=3)
    with database.read() as session:
        images = selection.named_images(session, [four, one, four])
    data = b"".join(archive_chunks(selection.zip_files(store, images)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        names = [f"brushwork-{four}.png", f"brushwork-{four}-2.png", f"brushwork-{four}-3.png"]
        assert archive.namelist() == [*names, f"brushwork-{one}.png"]
        assert archive.read(names[1]).endswith(b" 1")
    with database.write() as session:
        waiting = service.create_render(session, RenderRequest(prompt="it waits"), store).key
        removal.delete_render(session, one)
    for ids, kind, words in (
        ([one], Conflict, f"Deleted: image {one}"),
        ([waiting, four], Conflict, f"Not generated: image {waiting}"),
        ([four, 999], NotFound, "id 999"),
    ):
        with database.read() as session, pytest.raises(kind, match=words):
            selection.named_images(session, ids)
    monkeypatch.setattr(selection, "MAX_ZIP_BYTES", 100)
    with pytest.raises(TooLarge, match="Choose fewer"):
        selection.zip_files(store, images)


def test_a_comparison_names_what_differs(
    database: Database, store: LocalBlobStore, chalk: int
) -> None:
    plain = draw(database, store, "a fox", seed=1)
    styled = draw(database, store, "a fox", seed=1, adapters=[weighted(chalk, 0.8)])
    other = draw(database, store, "a fox", seed=2, steps=9)
    with database.read() as session:
        found = compare_renders(session, plain, styled)
        assert (found.a_label, found.b_label) == ("No adapters", "Chalk 0.80")
        rows = [(row.label, row.a_words, row.b_words) for row in found.settings]
        assert rows == [("Chalk v1", "none", "0.8")]
        seeds = compare_renders(session, plain, other)
        assert (seeds.a_label, seeds.b_label) == ("Seed 1", "Seed 2")
        assert [row.name for row in seeds.settings] == ["seed", "steps"]
        itself = compare_renders(session, plain, plain)
        assert (itself.settings, itself.a_label) == ([], f"Image {plain}")
        with pytest.raises(NotFound, match="Image 999 does not exist"):
            compare_renders(session, plain, 999)
