"""The right to the thing that an address names, asked before the route is called."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from app.registry.actor import making_for
from app.registry.job_kinds.kinds import JobKind
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.people import Share
from app.registry.tables.renders import Grid
from app.web.access.needs import Rule, make_rules
from app.web.access.things import CHANGES, named_things
from tests.app.people.conftest import ClientOf, find_person, state_of

ASKING_THEMSELVES = {  # `shares` does
    "/api/v1/sharing/{thing}/{thing_id}",
    "/share/{kind}/{thing_id}",
}


def rules_of_changes(app: FastAPI) -> list[Rule]:
    return [rule for rule in make_rules(app.routes) if rule.action in CHANGES]


def test_every_route_that_changes_a_thing_names_it(routed_app: FastAPI) -> None:
    without = [
        rule.path for rule in rules_of_changes(routed_app) if not named_things(rule.path, rule.path)
    ]
    assert set(without) == ASKING_THEMSELVES
    assert len(rules_of_changes(routed_app)) > 200


@pytest.fixture
def dataset(people_app: FastAPI) -> Dataset:
    """A dataset of Ana with an image, which the studio sees."""
    ana = find_person(people_app, "Ana")
    with making_for(ana.key, "studio"), state_of(people_app).database.write() as session:
        found = Dataset(slug="chalk", name="Chalk")
        session.add(found)
        session.flush()
        hashes = {"sha256": "a" * 64, "clean_sha256": "b" * 64, "thumbnail_sha256": "c" * 64}
        size = {"width": 1, "height": 1, "size_bytes": 1}
        session.add(Image(dataset_id=found.key, filename="x", **hashes, **size))
        session.add(Adapter(slug="lino", name="Lino", base_family="sd1"))
        session.add(Grid(title="g", request={}, axes=[]))
        session.add(IoJob(kind=JobKind.DRY_RUN, args={}))
    return found


@pytest.mark.parametrize("by", ["chalk", "1"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("patch", "/api/v1/datasets/{}"),
        ("delete", "/api/v1/datasets/{}"),
        ("delete", "/api/v1/storage/forever/datasets/{}"),
        ("post", "/api/v1/datasets/{}/images"),
        ("post", "/datasets/{}/captions/auto/undo"),
    ],
)
def test_others_are_told_who_may_change_a_thing(
    dataset: Dataset, client_of: ClientOf, method: str, path: str, by: str
) -> None:
    answer = getattr(client_of("Ben", "write"), method)(path.format(by))
    assert answer.status_code == 403
    assert "Only Ana or an administrator may" in answer.text
    for name in ("Ana", "Eva"):
        answer = getattr(client_of(name, "write"), method)(path.format(by))
        assert answer.status_code != 403, answer.text


def test_a_part_and_a_job_are_those_of_their_thing(dataset: Dataset, client_of: ClientOf) -> None:
    ben = client_of("Ben", "write")
    for path in ("/api/v1/images/1", "/api/v1/storage/forever/images/1"):
        assert ben.delete(path).status_code == 403
    for path in ("/api/v1/dry-runs/2/cancel", "/api/v1/grids/1/cancel"):
        assert ben.post(path).status_code in (403, 404)
        assert client_of("Ana", "write").post(path).status_code != 403


def test_who_may_edit_a_dataset_deletes_its_images_but_not_for_good(
    people_app: FastAPI, dataset: Dataset, client_of: ClientOf
) -> None:
    ben = find_person(people_app, "Ben")
    with state_of(people_app).database.write() as session:
        session.add(Share(kind="dataset", thing_id=dataset.key, user_id=ben.key, may_edit=True))
    client = client_of("Ben", "write")
    assert client.patch("/api/v1/datasets/1", json={"name": "New"}).status_code == 200
    edit = {"action": "delete", "image_ids": [1]}
    done = client.post("/api/v1/datasets/1/edits", json=edit)
    assert done.status_code == 200, done.text
    undo = f"/api/v1/datasets/1/edits/{done.json()['id']}/undo"
    assert client.post(undo).status_code == 200
    assert client_of("Vic", "write").post("/api/v1/datasets/1/edits", json=edit).status_code == 403
    assert client.delete("/api/v1/images/1").status_code == 200
    assert client.delete("/api/v1/storage/forever/images/1").status_code == 403
    assert client.delete("/api/v1/datasets/1").status_code == 403


def test_what_is_absent_or_hidden_is_answered_by_its_route(
    people_app: FastAPI, dataset: Dataset, client_of: ClientOf
) -> None:
    with state_of(people_app).database.write() as session:
        session.get_one(Dataset, 1).visibility = "private"
    ben = client_of("Ben", "write")
    answers = [ben.patch(f"/api/v1/datasets/{key}", json={"name": "N"}) for key in (1, 99, "none")]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
