"""Rows are named by their id or their slug, and answers can be sent again."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from tests import fake_workers

API = "/api/v1"


@pytest.fixture
def ink(state: AppState, client: TestClient) -> int:
    """The id of the adapter “Ink”, with a dataset “Ink” and a recipe “Evening”"""
    adapter = fake_workers.adapter(state, "Ink", trigger_word="ink")
    request = {"prompt": "a castle", "adapters": [{"id": "ink"}]}
    assert sent(client, "recipes", {"name": "Evening", "request": request}, 201)
    return adapter.key


def sent(client: TestClient, path: str, body: dict[str, Any], status: int = 202) -> dict[str, Any]:
    answer = client.post(f"{API}/{path}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.usefixtures("ink")
def test_a_path_names_a_row_by_its_id_or_slug(client: TestClient) -> None:
    slugs = {"datasets": "ink", "adapters": "ink", "base-models": "starter", "recipes": "evening"}
    assert sent(client, "prompt-sets", {"name": "Animals"}, 201)
    slugs |= {"prompt-sets": "animals"}
    for path, slug in slugs.items():
        found = client.get(f"{API}/{path}/{slug}").json()
        assert found["slug"] == slug
        assert client.get(f"{API}/{path}/{found['id']}").json() == found
        for other in ("nothing", "9", "0", "²", f"{10**40}", "x" * 200):
            assert client.get(f"{API}/{path}/{other}").status_code == 404, (path, other)
    kept = client.put(f"{API}/folders/nowhere/adapters/ink")
    assert "names no folder of" in kept.text
    removal = "storage/forever/base-models"
    found = [client.get(f"{API}/{removal}/{name}").json()["detail"] for name in ("starter", 1)]
    assert found[0] == found[1]
    assert client.delete(f"{API}/datasets/ink").status_code == 200
    assert client.get(f"{API}/datasets/ink").status_code == 404
    assert client.post(f"{API}/datasets/ink/restore").json()["name"] == "Ink"


def test_a_slug_is_no_number_because_that_is_an_id(client: TestClient) -> None:
    first = sent(client, "datasets", {"name": "2"}, 201)
    second = sent(client, "datasets", {"name": "Two"}, 201)
    assert first["slug"] == "no-2"
    assert client.get(f"{API}/datasets/2").json() == second


def test_a_body_or_a_filter_names_a_row_by_its_id_or_slug(client: TestClient, ink: int) -> None:
    run = sent(client, "runs", {"dataset_id": "ink", "adapter_id": "ink", "base_model": "starter"})
    for filters in ("dataset_id=ink&adapter_id=ink&base_model=starter", f"adapter_id={ink}"):
        assert client.get(f"{API}/runs?{filters}").json()[0]["id"] == run["id"]
    assert client.get(f"{API}/runs?dataset_id=nothing").json() == []
    several = {"datasets": [{"dataset_id": "ink"}], "regularization_dataset_id": "nothing"}
    refused = client.post(f"{API}/runs", json=several)
    assert refused.json()["errors"][0]["field"] == "regularization_dataset_id"
    render = {"prompt": "a fox", "adapters": [{"id": "ink"}, {"id": f"{ink}"}]}
    made = sent(client, "renders", render)
    assert client.get(f"{API}/renders/{made['id']}").json()["adapters"][0]["id"] == ink
    assert (
        client.post(f"{API}/renders", json=render | {"adapters": [{"id": "no"}]}).status_code == 422
    )
    for reference in ("ink", ink):
        assert client.get(f"{API}/renders?adapter={reference}").status_code == 200
    other = sent(client, "datasets", {"name": "Other"}, 201)
    copy = {"action": "copy", "dataset_id": "other", "all": True}
    assert sent(client, "datasets/ink/edits", copy, 200)["changed"] == 3
    assert client.get(f"{API}/datasets/other").json()["image_count"] == 3
    assert other["id"] == 2


def again(client: TestClient, path: str, body: dict[str, Any], status: int = 202) -> dict[str, Any]:
    """What a request with a part of an answer makes, as it is answered then."""
    return found(client, path, sent(client, path, body, status)["id"])


def found(client: TestClient, path: str, key: int) -> dict[str, Any]:
    answer = client.get(f"{API}/{path}/{key}")
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    return row


def test_what_was_asked_for_can_be_asked_for_again(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state, "Ink", trigger_word="ink")
    used = [{"id": "ink", "version": "latest", "weight": 0.5, "block_weights": {"middle": 0.2}}]
    picture = {"prompt": "a fox", "seed": 7, "adapters": used, "twin": True, "sampler": "euler"}
    first = found(client, "renders", sent(client, "renders", picture)["id"])
    second = again(client, "renders", first["request"])
    assert second["request"] == first["request"]
    assert (first["base_model"], second["seed"], second["sampler"]) == (1, 7, "euler")
    sent(client, "renders", {"prompt": "a cat", "adapters": first["adapters"]})

    run = found(client, "runs", 1)
    asked = client.get(f"{API}/runs/1/settings").json()["request"]
    repeated = again(client, "runs", asked)
    same = ("name", "config", "base_model", "dataset_id", "trigger_word", "preset")
    assert {name: repeated[name] for name in same} == {name: run[name] for name in same}

    recipe = {"name": "Evening", "request": picture | {"twin": False}}
    kept = again(client, "recipes", recipe, 201)
    assert kept["request"]["adapters"][0]["version"] == "latest"  # not the version that it names
    copy = again(client, "recipes", {"name": "Evening", "request": kept["request"]}, 201)
    assert copy["request"] == kept["request"]
    sent(client, "renders", kept["request"])

    grid = {
        "request": {"prompt": "a fox", "adapters": [{"id": adapter.key}]},
        "columns": {"kind": "weight", "values": [0.25, -1, 1.5]},
        "rows": {"kind": "prompt", "values": ["a fox, at night", "a cat"]},
    }
    made = again(client, "grids", grid)
    assert made["cells"] == 6
    assert made["columns"]["labels"] == ["Ink 0.25", "Ink -1.00", "Ink 1.50"]
    names = ("request", "columns", "rows", "sheets", "title")
    twice = again(client, "grids", {name: made[name] for name in names})
    assert {name: twice[name] for name in names} == {name: made[name] for name in names}
