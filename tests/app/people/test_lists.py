"""Lists, searches and their numbers have what a person may see, and nothing else."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from sqlmodel import select

from app.registry.actor import Principal, Role, Visibility, acting_as
from app.registry.adapters.library import listing
from app.registry.adapters.library.listing import Filter
from app.registry.db import utcnow
from app.registry.renders.gallery import GalleryFilter, list_renders
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.people import Share
from app.registry.tables.renders import Render, RenderAdapter, RenderSource, SourceUser
from tests import fake_workers
from worker.core.families.family import BaseFamily

from .conftest import ClientOf, find_person, state_of, train_privately, working_as

ANA = Principal(2, Role.MEMBER, "Ana", Visibility.PRIVATE)
BEN = Principal(3, Role.MEMBER, "Ben")
FAMILY = next(iter(BaseFamily))


@pytest.fixture
def adapters(people_app: FastAPI) -> FastAPI:
    """Three private adapters of Ana, and one of Ben that all see."""
    names = {ANA: ("Chalk 1", "Chalk 2", "Chalk 3"), BEN: ("Chalk 4",)}
    for owner, of_owner in names.items():
        with acting_as("test", owner), state_of(people_app).database.write() as session:
            for name in of_owner:
                slug = name.lower().replace(" ", "-")
                session.add(Adapter(slug=slug, name=name, base_family=FAMILY, starred=True))
    return people_app


@pytest.mark.parametrize("most", [2, 1_000], ids=["scanned", "sorted here"])
@pytest.mark.parametrize(
    "wanted",
    [Filter(), Filter(q="chalk"), Filter(starred=True), Filter(q="chalk", base=FAMILY)],
    ids=["all", "words", "stars", "words of a family"],
)
def test_a_list_of_adapters_counts_what_is_seen(
    adapters: FastAPI, monkeypatch: pytest.MonkeyPatch, wanted: Filter, most: int
) -> None:
    monkeypatch.setattr(listing, "MAX_SORTED_IN_PYTHON", most)
    numbers = {}
    for person in (ANA, BEN):
        with acting_as("test", person), state_of(adapters).database.read() as session:
            page = listing.list_adapters(session, wanted)
        numbers[person.name] = (page.total, page.more)
    is_cut = most == 2 and bool(wanted.q)
    assert numbers["Ben"] == (1, False)
    assert numbers["Ana"] == ((2, True) if is_cut else (4, False))


@pytest.mark.parametrize(("end", "total", "more"), [(1, 1, True), (2, 2, False)])
def test_numbers_of_filters_leave_out_what_is_hidden(
    adapters: FastAPI, monkeypatch: pytest.MonkeyPatch, end: int, total: int, more: bool
) -> None:
    monkeypatch.setattr(listing, "COUNT_END", end)
    with state_of(adapters).database.write() as session:
        first, second, *_ = session.exec(select(Adapter).order_by(Adapter.name))
        session.add(Share(kind="adapter", thing_id=first.key, user_id=BEN.user_id))
        second.deleted_at = utcnow()
    with acting_as("test", BEN), state_of(adapters).database.read() as session:
        page = listing.list_adapters(session, Filter())
    assert (page.total, page.more) == (total, more)
    assert (page.families, page.starred) == ({FAMILY: 2}, 2)


def test_the_storage_counts_what_is_seen(people_app: FastAPI, client_of: ClientOf) -> None:
    train_privately(people_app, "Ana")
    state = state_of(people_app)
    sketch = state.store.put_bytes(b"a sketch").sha256
    with state.database.write() as session:
        session.add(RenderSource(sha256=sketch, width=1, height=1))
        session.add(SourceUser(sha256=sketch, user_id=find_person(people_app, "Ana").key))
    files: dict[str, dict[str, int]] = {}
    for name in ("Eva", "Ana", "Ben"):
        uses = client_of(name, "read").get("/api/v1/storage").json()
        files[name] = {use["kind"]: use["files"] for use in uses if use["files"]}
    assert files["Ben"] == {}
    assert files["Ana"]
    assert files["Ana"].items() <= files["Eva"].items()
    for path in ("/storage", "/system"):
        pages = {name: client_of(name).get(path).text for name in ("Eva", "Ben")}
        assert "/storage/forever" not in pages["Ben"]
    assert "In the trash" in pages["Eva"]
    assert "In the trash" not in pages["Ben"]


def test_no_word_of_a_hidden_adapter_finds_its_images(adapters: FastAPI) -> None:
    database = state_of(adapters).database
    with database.write() as session:
        hidden = session.exec(select(Adapter).where(Adapter.name == "Chalk 1")).one()
        used = {"adapter_id": hidden.key, "version_id": 1, "name": "Lino", "slug": "lino"}
        render = Render(
            base_model_id=1, prompt="a Fox", seed=1, steps=1, guidance=1, width=8, height=8,
            cache_key="k", owner_id=3, adapters=[used], status="succeeded",
        )  # fmt: skip
        session.add(render)
        session.flush()
        render.visibility = Visibility.STUDIO.value  # the adapter became private since
        session.add(RenderAdapter(render_id=render.key, adapter_id=hidden.key))
    found = {}
    for person in (ANA, BEN):
        with acting_as("test", person), database.read() as session:
            found[person.name] = [
                list_renders(session, GalleryFilter(q=q), size=5).total
                for q in ("fox", "lino", "chalk")
            ]
    assert found == {"Ana": [1, 1, 1], "Ben": [1, 0, 0]}


def test_the_trash_offers_what_its_reader_may_do(adapters: FastAPI, client_of: ClientOf) -> None:
    with state_of(adapters).database.write() as session:
        for row in session.exec(select(Adapter)):
            row.deleted_at, row.visibility = utcnow(), Visibility.STUDIO_EDIT.value
    restore, forever = ">Restore</button>", ">Delete for good</a>"
    pages = {name: client_of(name).get("/adapters/deleted").text for name in ("Eva", "Ben", "Vic")}
    offered = {name: (page.count(restore), page.count(forever)) for name, page in pages.items()}
    assert offered == {"Eva": (4, 4), "Ben": (1, 1), "Vic": (0, 0)}


def test_who_may_edit_a_dataset_restores_its_images(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    with working_as(people_app, "Ana"):
        dataset = fake_workers.dataset(state_of(people_app), "Prints")
    with state_of(people_app).database.write() as session:
        session.get_one(Dataset, dataset.key).visibility = Visibility.STUDIO_EDIT.value
        image = session.exec(select(Image)).first()
        assert image is not None
        image.deleted_at = utcnow()
    pages = {name: client_of(name).get("/datasets/prints/deleted").text for name in ("Ana", "Ben")}
    assert all(">Restore</button>" in page for page in pages.values())
    assert [name for name, page in pages.items() if "for good</a>" in page] == ["Ana"]
    assert client_of("Ben").post(f"/datasets/prints/images/{image.key}/restore").is_redirect
