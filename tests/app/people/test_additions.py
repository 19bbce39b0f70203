"""Nothing is added to an adapter that somebody may not change, nor what is private to others'."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from sqlmodel import col, select

from app.registry.actor import Visibility, making_for
from app.registry.adapters.versions.create_version import adapter_of_parent
from app.registry.base_models.service import ensure_embedded
from app.registry.job_kinds.kinds import JobKind
from app.registry.renders.covers import COVER_SLOT, take_cover
from app.registry.renders.ordered_covers import missing_covers
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from app.registry.tables.people import Share
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from app.registry.weight_evaluations import keep_card
from tests import fake_workers
from tests.app.people.conftest import (
    ClientOf,
    find_person,
    state_of,
    train_privately,
    working_as,
)
from worker.core.lora_files.weights import WeightCard


@pytest.fixture
def adapter(people_app: FastAPI) -> Adapter:
    """An adapter of Ana with its run and dataset, which the studio sees."""
    made = train_privately(people_app, "Ana")
    set_all(people_app, "studio")
    return made


def set_all(app: FastAPI, visibility: str) -> None:
    with state_of(app).database.write() as session:
        for table in (Adapter, Dataset, Run):
            for thing in session.exec(select(table)):
                thing.visibility = visibility


def test_a_version_is_ordered_by_who_may_change_the_adapter(
    people_app: FastAPI, client_of: ClientOf, adapter: Adapter
) -> None:
    ben, address = client_of("Ben", "write"), f"/api/v1/adapters/{adapter.slug}"
    orders = {
        "/api/v1/runs": {"dataset_id": 1, "adapter_id": adapter.slug},
        f"{address}/resize": {"rank": 1},
    }
    for path, body in orders.items():
        answer = ben.post(path, json=body)
        assert answer.status_code == 403, (path, answer.text)
        assert "Ana" in answer.text
    answer = ben.post(f"{address}/versions/1/again")  # becomes an adapter of Ben
    assert answer.status_code == 202, answer.text
    with state_of(people_app).database.read() as session:
        again = session.get_one(Run, answer.json()["id"])
        ben_id = find_person(people_app, "Ben").key
        assert (again.adapter_id, again.owner_id) == (None, ben_id)
    set_all(people_app, "studio_edit")
    answer = ben.post(f"{address}/resize", json={"rank": 1})
    assert answer.status_code == 202, answer.text


def test_what_is_made_of_a_seen_adapter_of_another_is_ones_own(
    people_app: FastAPI, client_of: ClientOf, adapter: Adapter
) -> None:
    ben, other = client_of("Ben", "write"), train_privately(people_app, "Ana", "Other")
    merge = {"name": "Both", "method": "svd", "rank": 2}

    def merged(keys: list[int]) -> tuple[int, str]:
        body = merge | {"adapters": [{"id": key} for key in keys]}
        answer = ben.post("/api/v1/adapters/merge", json=body)
        return answer.status_code, re.sub(r"\d+", "N", answer.text)

    assert merged([adapter.key, other.key]) == merged([adapter.key, 987_654])
    assert merged([adapter.key, other.key])[0] in (404, 422)
    set_all(people_app, "studio")
    assert merged([adapter.key, other.key])[0] == 202
    assert ben.patch(f"/api/v1/adapters/{adapter.slug}", json={"name": "N"}).status_code == 403
    with state_of(people_app).database.read() as session:
        job = session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
        assert job is not None
        assert job.owner_id == find_person(people_app, "Ben").key


def test_a_private_run_makes_no_version_that_others_see(
    people_app: FastAPI, client_of: ClientOf, adapter: Adapter
) -> None:
    ana, state = client_of("Ana", "write"), state_of(people_app)
    with state.database.write() as session:
        for dataset in session.exec(select(Dataset)):
            dataset.visibility = "private"
    body = {"dataset_id": 1, "adapter_id": adapter.slug}
    answer = ana.post("/api/v1/runs", json=body)
    assert answer.status_code == 422, answer.text
    assert "adapter_id" in answer.text
    assert "private" in answer.text
    set_all(people_app, "private")
    assert ana.post("/api/v1/runs", json=body).status_code == 202


WHERE_PERMITTED = pytest.mark.parametrize(("name", "visibility", "permitted"), [
    ("Ben", "studio", False), ("Ana", "private", False), ("Ana", "studio", True),
    ("Eva", "studio", True),
])  # fmt: skip


@WHERE_PERMITTED
def test_a_run_that_continues_another_makes_a_version_only_where_that_is_permitted(
    people_app: FastAPI, adapter: Adapter, name: str, visibility: str, permitted: bool
) -> None:
    with state_of(people_app).database.write() as session:
        parent = session.exec(select(Run)).one()
        values = parent.model_dump(exclude={"id", "adapter_version_id"})
        run = Run(**values | {"parent_id": parent.key, "visibility": visibility})
        run.owner_id = find_person(people_app, name).key
        session.add(run)
        session.flush()
        assert adapter_of_parent(session, run) == (adapter.key if permitted else None)


def test_a_cover_is_taken_only_of_who_may_change_the_adapter(
    people_app: FastAPI, client_of: ClientOf, adapter: Adapter
) -> None:
    state = state_of(people_app)
    with state.database.write() as session:
        session.get_one(Adapter, adapter.key).cover_sha256 = None
    for name, takes in (("Ben", False), ("Ana", True)):
        body = {"prompt": "a fox", "adapters": [{"id": adapter.key}], "seed": 1}
        assert client_of(name, "use").post("/api/v1/renders", json=body).status_code == 202
        fake_workers.draw(state)
        with state.database.write() as session:
            render = session.exec(select(Render).order_by(col(Render.id).desc())).first()
            assert render is not None
            render.draft_slot = COVER_SLOT.format(adapter=adapter.key)
            take_cover(session, render)
            assert (session.get_one(Adapter, adapter.key).cover_sha256 is not None) is takes


def test_a_draft_is_kept_by_who_may_change_it(
    people_app: FastAPI, client_of: ClientOf, adapter: Adapter
) -> None:
    body = {"prompt": "a fox", "adapters": [{"id": adapter.key}], "draft_slot": "tab"}
    made = client_of("Ana", "use").post("/api/v1/renders", json=body)
    address = f"/api/v1/renders/{made.json()['id']}/keep"
    refused = client_of("Ben", "use").post(address)
    assert (refused.status_code, "Only Ana or" in refused.text) == (403, True)
    assert client_of("Ana", "use").post(address).status_code == 200
    assert client_of("Ben", "use").post(address).status_code == 200  # nothing is left to do


@WHERE_PERMITTED
def test_a_weight_card_is_kept_only_where_that_is_permitted(
    people_app: FastAPI, adapter: Adapter, name: str, visibility: str, permitted: bool
) -> None:
    """It names the base model, which may be private; the evaluation has it in any case."""
    with state_of(people_app).database.write() as session:
        version = session.exec(select(AdapterVersion).filter_by(adapter_id=adapter.key)).one()
        base, card = session.exec(select(BaseModel)).first(), WeightCard(0.4, 1.0, 1.5, "starter")
        job = IoJob(kind=JobKind.EVALUATE_WEIGHTS, subject_id=version.key, args={})
        job.owner_id, job.visibility = find_person(people_app, name).key, visibility
        assert base is not None
        keep_card(session, job, base, card)
        assert bool(version.weight_cards) is permitted


def test_covers_are_ordered_of_adapters_that_one_may_change(people_app: FastAPI) -> None:
    state = state_of(people_app)
    ben = find_person(people_app, "Ben").key
    for owner, name, visibility in (
        ("Ana", "shown", Visibility.STUDIO),
        ("Ana", "lent", Visibility.PRIVATE),
        ("Ana", "edited together", Visibility.PRIVATE),
        ("Ana", "everybody's", Visibility.STUDIO_EDIT),
        ("Ben", "own", Visibility.STUDIO),
    ):
        key = find_person(people_app, owner).key
        with making_for(key, visibility), state.database.write() as session:
            made = Adapter(name=name, slug=name.replace(" ", "-"), base_family="sd1")
            session.add(made)
            session.flush()
            if visibility is Visibility.PRIVATE:
                share = {"kind": "adapter", "thing_id": made.key, "user_id": ben}
                session.add(Share(**share, may_edit=name == "edited together"))
    with working_as(people_app, "Ben"), state.database.read() as session:
        found = {one.name for one in missing_covers(session).adapters}
    assert found == {"edited together", "everybody's", "own"}


def test_the_embedded_base_is_nobodys(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with state.database.write() as session:
        for base in session.exec(select(BaseModel)):
            base.source = f"gone {base.key}"
    with working_as(people_app, "Ana", Visibility.PRIVATE), state.database.write() as session:
        base = ensure_embedded(session)
        job = session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
        assert job is not None
        rows = [(row.owner_id, row.visibility) for row in (base, job)]
    assert rows == [(1, "studio"), (1, "studio")]
    assert base.slug == f"{base.source}-2"
