"""Sharing, publishing, and what goes along with a thing."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from sqlmodel import Session

from app.registry.actor import Principal, Role, Visibility, acting_as
from app.registry.db import Database, utcnow
from app.registry.errors import Conflict, Forbidden, NotFound
from app.registry.job_kinds.kinds import JobKind
from app.registry.people import shares
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.people import User
from app.registry.tables.renders import Grid, GridCell, Render, RenderAdapter
from tests.app.people.conftest import find_person, state_of


@pytest.fixture
def database(people_app: FastAPI) -> Database:
    return state_of(people_app).database


class Things:
    """Ana's private dataset, an adapter trained on it, and a grid drawn with the adapter."""

    def __init__(self, app: FastAPI) -> None:
        self.database = state_of(app).database
        self.people = {name: find_person(app, name) for name in ("Eva", "Ana", "Ben", "Vic")}
        with self.of("Ana") as session:
            dataset = Dataset(slug="prints", name="Prints", visibility="private")
            session.add(dataset)
            session.flush()
            pinned = DatasetVersion(
                dataset_id=dataset.key, fingerprint="f", image_count=0, items=[]
            )
            adapter = Adapter(slug="lino", name="Lino", base_family="sd1")
            session.add_all([pinned, adapter])
            session.flush()
            version = AdapterVersion(
                adapter_id=adapter.key, version=1, sha256="d" * 64, size_bytes=1, rank=1, alpha=1,
                dataset_version_id=pinned.id,
            )  # fmt: skip
            grid = Grid(title="g", request={}, axes=[])
            render = Render(
                base_model_id=1, prompt="p", seed=1, steps=1, guidance=1, width=8, height=8,
                cache_key="k",
            )  # fmt: skip
            session.add_all([version, grid, render])
            session.flush()
            session.add(RenderAdapter(render_id=render.key, adapter_id=adapter.key))
            session.add(GridCell(grid_id=grid.key, place=0, render_id=render.key, cache_key="k"))
            session.flush()
        self.dataset, self.adapter, self.grid, self.render = dataset, adapter, grid, render

    def of(self, name: str) -> Any:
        user = self.people[name]
        principal = Principal(user.key, Role(user.role), user.name)
        return _Session(self.database, principal)


class _Session:
    def __init__(self, database: Database, principal: Principal) -> None:
        self.parts = [acting_as("test", principal), database.write()]

    def __enter__(self) -> Session:
        self.parts[0].__enter__()
        session: Session = self.parts[1].__enter__()
        return session

    def __exit__(self, *error: Any) -> None:
        try:
            self.parts[1].__exit__(*error)
        finally:
            self.parts[0].__exit__(*error)


@pytest.fixture
def things(people_app: FastAPI) -> Things:
    return Things(people_app)


def test_what_is_drawn_with_a_private_adapter_is_published_with_its_grid(things: Things) -> None:
    assert {one.visibility for one in (things.adapter, things.grid, things.render)} == {"private"}
    with things.of("Ben") as session, pytest.raises(NotFound, match="There is no such grid"):
        shares.thing_named(session, "grid", things.grid.key)
    with things.of("Ana") as session:
        grid = shares.thing_named(session, "grid", things.grid.key)
        shares.set_visibility(session, grid, Visibility.STUDIO)
    with things.of("Ben") as session:
        assert shares.thing_named(session, "grid", things.grid.key).title == "g"
        assert session.get(Render, things.render.id) is not None
        assert session.get(Adapter, things.adapter.id) is None


def test_a_share_lets_one_person_see_and_edit_and_is_taken_back(things: Things) -> None:
    with things.of("Ana") as session:
        grid = shares.thing_named(session, "grid", things.grid.key)
        shares.share(session, grid, things.people["Ben"], edits=True)
        assert [(user.name, edits) for user, edits in shares.shares_of(session, grid)] == [
            ("Ben", True)
        ]
    with things.of("Vic") as session:
        assert session.get(Grid, things.grid.id) is None
    with things.of("Ben") as session:
        grid = shares.thing_named(session, "grid", things.grid.key)
        assert session.get(Render, things.render.id) is not None
        grid.title = "new"
        found = shares.standing(session, grid)
        assert found is not None
        assert (found.owner, found.may_edit, found.may_own) == ("Ana", True, False)
        with pytest.raises(Forbidden, match="Only Ana"):
            shares.share(session, grid, things.people["Vic"])
    with things.of("Ana") as session:
        shares.unshare(session, session.get_one(Grid, things.grid.id), things.people["Ben"])
    with things.of("Ben") as session:
        assert session.get(Grid, things.grid.id) is None
        assert session.get(Render, things.render.id) is None


def test_publishing_needs_the_right_to_publish_every_private_source(things: Things) -> None:
    with things.of("Ana") as session:
        adapter = session.get_one(Adapter, things.adapter.id)
        shares.share(session, adapter, things.people["Ben"])
    with things.of("Ben") as session:
        render = Render(
            base_model_id=1, prompt="p", seed=1, steps=1, guidance=1, width=8, height=8,
            cache_key="k", adapters=[{"adapter_id": things.adapter.id}],
        )  # fmt: skip
        session.add(render)
        session.flush()
        assert render.visibility == "private"
        with pytest.raises(Forbidden, match=r"a private (adapter|dataset) of Ana"):
            shares.set_visibility(session, render, Visibility.STUDIO)
    with things.of("Eva") as session:
        shares.set_visibility(session, session.get_one(Render, render.id), Visibility.STUDIO)


def test_the_owner_publishes_and_is_told_what_stays_private(things: Things) -> None:
    with things.of("Ana") as session:
        adapter = session.get_one(Adapter, things.adapter.id)
        found = shares.standing(session, adapter)
        assert found is not None
        assert found.sources == ["dataset “Prints”"]
        shares.set_visibility(session, adapter, Visibility.STUDIO_EDIT)
    with things.of("Ben") as session:
        assert session.get_one(Adapter, things.adapter.id).name == "Lino"
        assert session.get(Dataset, things.dataset.id) is None


def test_grids_of_an_evaluation_go_with_what_it_evaluated(things: Things) -> None:
    with things.of("Ana") as session:
        version = session.get_one(AdapterVersion, 1)
        args = {"grid_id": things.grid.id}
        session.add(IoJob(kind=JobKind.EVALUATE_WEIGHTS, subject_id=version.id, args=args))
        session.flush()
        adapter = session.get_one(Adapter, things.adapter.id)
        shares.set_visibility(session, adapter, Visibility.STUDIO)
    with things.of("Ben") as session:
        assert session.get(Grid, things.grid.id) is not None
        assert session.get(Render, things.render.id) is not None


def test_a_share_that_cannot_be_is_refused(things: Things) -> None:
    with things.of("Ana") as session:
        grid = session.get_one(Grid, things.grid.id)
        with pytest.raises(Conflict, match="belongs to Ana already"):
            shares.share(session, grid, things.people["Ana"])
        with pytest.raises(Conflict, match="Vic is a viewer"):
            shares.share(session, grid, things.people["Vic"], edits=True)
        disabled = User(id=9, name="Dan", name_key="dan", role="member", disabled_at=utcnow())
        with pytest.raises(Conflict, match="Dan is disabled"):
            shares.share(session, grid, disabled)


def test_without_accounts_nothing_is_shared(database: Database) -> None:
    with database.write() as session:
        session.add(Grid(title="g", request={}, axes=[]))
        session.flush()
        grid = session.get_one(Grid, 1)
        assert shares.standing(session, grid) is None
        with pytest.raises(Conflict, match="Without accounts"):
            shares.set_visibility(session, grid, Visibility.PRIVATE)
