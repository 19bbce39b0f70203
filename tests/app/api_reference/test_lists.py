"""Lists of the API are read part by part, while they change."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from tests import fake_workers

API = "/api/v1"


def walk(client: TestClient, address: str, limit: int = 1) -> list[Any]:
    """All items of a list, from the parts that it links to."""
    found: list[Any] = []
    following = f"{API}{address}{'&' if '?' in address else '?'}limit={limit}"
    while following:
        answer = client.get(following)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()) <= limit
        found += answer.json()
        following = answer.links.get("next", {}).get("url", "")
    return found


@pytest.fixture
def filled(client: TestClient, state: AppState) -> TestClient:
    """A server with datasets, images, a trained and a waiting run, and renders."""
    for name in ("Chalk", "Ink"):
        fake_workers.adapter(state, name)
    fake_workers.ready_base(state)
    for seed in range(2):
        body = {"prompt": "a fox", "seed": seed, "adapters": [{"id": 1}]}
        assert client.post(f"{API}/renders", json=body).status_code == 202
    fake_workers.draw(state)
    fake_workers.queued_run(state, fake_workers.dataset(state, "Wash", pictures=3))
    for name in ("Soft", "Hard"):
        body = {"name": name, "config": {"rank": 8}}
        assert client.post(f"{API}/presets", json=body).status_code == 201
        assert client.post(f"{API}/prompt-sets", json={"name": name}).status_code == 201
    return client


ADDRESSES = [
    "/datasets",
    "/datasets?q=a",
    "/datasets/1/images",
    "/datasets/1/images?sort=name",
    "/datasets/1/versions",
    "/base-models",
    "/base-models/1/subjects?q=bird",
    "/presets",
    "/prompt-sets",
    "/runs",
    "/runs?sort=loss",
    "/runs?sort=name",
    "/runs/1/images",
    "/runs/1/samples",
    "/renders",
    "/adapters",
    "/adapters?sort=name-down",
    "/adapters/1/aliases",
    "/adapters/1/versions",
    "/adapters/1/renders",
    "/storage",
]


def test_the_parts_of_a_list_are_the_list(filled: TestClient) -> None:
    for address in ADDRESSES:
        whole = filled.get(f"{API}{address}")
        assert walk(filled, address) == whole.json(), address
        assert whole.json(), f"{address}: an empty list tests nothing"
        count = str(len(whole.json()))
        assert whole.headers.get("x-total-count", count) == count, address
        assert "link" not in whole.headers, address


def test_what_is_handled_part_by_part_is_handled_once(filled: TestClient) -> None:
    """Rows leave the list while it is read, the one that the cursor names among them."""
    deleted = []
    address = f"{API}/adapters?limit=1"
    for _ in range(2):
        answer = filled.get(address)
        (row,) = answer.json()
        deleted.append(row["name"])
        assert filled.delete(f"{API}/adapters/{row['id']}").status_code == 200
        address = answer.links.get("next", {}).get("url", "")
    assert sorted(deleted) == ["Chalk", "Ink"]
    address = f"{API}/storage/deleted?kind=adapters&limit=1"
    while address:
        answer = filled.get(address)
        for row in answer.json():
            assert filled.post(row["restore"]).status_code == 200
        address = answer.links.get("next", {}).get("url", "")
    assert filled.get(f"{API}/storage/deleted?kind=adapters").json() == []


def test_a_cursor_whose_place_is_lost_says_so(filled: TestClient) -> None:
    first = filled.get(f"{API}/datasets/3/images?sort=similar&limit=1")
    filled.delete(f"{API}/images/{first.json()[0]['id']}")
    refused = filled.get(first.links["next"]["url"])
    assert refused.status_code in (200, 422)


@pytest.mark.parametrize("cursor", ["nonsense", "WyJhIiwxXQ", "W1tb", "bnVsbA"])
@pytest.mark.parametrize("address", ["/renders", "/datasets", "/adapters"])
def test_what_is_no_cursor_of_this_list_is_refused(
    client: TestClient, address: str, cursor: str
) -> None:
    answer = client.get(f"{API}{address}?cursor={cursor}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["cursor"]
    assert "Start at the first page" in answer.json()["detail"]


def test_a_cursor_belongs_to_its_list_and_filters(filled: TestClient) -> None:
    cursor = filled.get(f"{API}/runs?limit=1").links["next"]["url"].partition("cursor=")[2]
    assert filled.get(f"{API}/runs?limit=7&cursor={cursor}").status_code == 200
    for address in ("/runs?sort=name&", "/runs?q=ink&", "/datasets?"):
        assert filled.get(f"{API}{address}cursor={cursor}").status_code == 422


@pytest.mark.parametrize(
    ("address", "field"),
    [("/runs?status=nonsense", "status"), ("/adapters?base=sd9", "base"), ("/runs?page=2", "page")],
)
def test_unknown_parameters_and_values_are_refused(
    client: TestClient, address: str, field: str
) -> None:
    answer = client.get(f"{API}{address}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
