"""Sweeps over REST: planned, started, watched, used and deleted."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from tests import fake_sweeps, fake_workers
from tests.app.sweeps.test_sweeps import clear, equal

API = "/api/v1"
FOREVER = f"{API}/storage/forever"


@pytest.fixture
def images(state: AppState) -> Dataset:
    fake_workers.measured_base(state)
    return fake_sweeps.images_of_style(state)


def body(of: Dataset, **changes: Any) -> dict[str, Any]:
    run = {"dataset_id": of.slug, "preset": "quick", "config": {"steps": 40}}
    return {"run": run, "axes": {"rank": [2, 4, 8]}, "seeds": 2, "subjects": 6} | changes


def test_a_sweep_from_its_plan_to_its_winner(
    client: TestClient, state: AppState, images: Dataset
) -> None:
    planned = client.post(f"{API}/sweeps/estimate", json=body(images)).json()
    assert planned["configurations"] == ["rank 2", "rank 4", "rank 8"]
    assert (planned["cost"]["runs"], planned["halves"]) == (6, True)
    assert client.get(f"{API}/sweeps").json() == []

    answer = client.post(f"{API}/sweeps", json=body(images))
    address, started = answer.headers["location"], answer.json()
    assert (answer.status_code, address) == (202, f"{API}/sweeps/{started['id']}")
    assert (started["status"], started["stage"], started["progress"]) == ("running", "half", 0)
    assert [len(row["runs"]) for row in started["configurations"]] == [2, 2, 2]
    assert client.post(f"{address}/pause").json()["status"] == "paused"
    assert client.post(f"{address}/resume").json()["status"] == "running"
    assert client.post(f"{address}/use", json={}).status_code == 409
    assert client.request("DELETE", address).status_code == 409

    fake_sweeps.run_to_the_end(state, clear)
    found = client.get(address).json()
    assert (found["status"], found["winner"], found["progress"]) == ("succeeded", 2, 1)
    assert found["reason"].startswith("Rank 8 wins")
    assert found["seconds"] > 0
    assert found["size_bytes"] > 0
    assert found["saved_seconds"] == pytest.approx(80)  # two runs of half of their steps
    best, second, ended = found["configurations"]
    assert (best["name"], second["ended"], ended["ended"]) == ("rank 8", None, "ended at 20")
    assert [step for step, _ in best["styles"]] == [20, 40]
    grid = client.get(f"{API}/grids/{best['runs'][0]['grid_id']}").json()
    assert grid["columns"]["values"].count(",") == 4  # the base model, then four runs
    jobs = client.get(f"{API}/jobs?kind=advance_sweep").json()
    assert {job["url"] for job in jobs} == {address}

    used = client.post(f"{address}/use", json={}).json()
    adapter = client.get(f"{API}/adapters/{used['adapter_id']}").json()
    assert adapter["name"] == "Linocut"
    assert client.post(f"{address}/cancel").status_code == 409

    others = f"{FOREVER}/sweeps/{started['id']}/others"
    preview = client.get(others).json()
    assert preview["size_bytes"] > 0
    assert "The runs of rank 8 stay, and what was measured of all." in preview["stays"]
    assert client.request("DELETE", others).json()["title"].endswith("but those of rank 8")
    left = client.get(address).json()
    assert [len(row["runs"]) for row in left["configurations"]] == [2, 0, 0]
    assert left["winner"] == 2
    assert client.request("DELETE", others).status_code == 404


def test_a_sweep_is_deleted_restored_and_deleted_for_good(
    client: TestClient, state: AppState, images: Dataset
) -> None:
    address = client.post(f"{API}/sweeps", json=body(images)).headers["location"]
    fake_sweeps.run_to_the_end(state, equal)
    assert client.get(address).json()["winner"] is None
    assert client.get(f"{FOREVER}{address.removeprefix(API)}/others").status_code == 422
    kept = client.get(f"{FOREVER}{address.removeprefix(API)}/others?kept=0").json()
    assert kept["title"].endswith("but those of rank 2")
    deleted = client.request("DELETE", address).json()
    assert client.get(address).status_code == 404
    assert client.get(f"{API}/runs").json() == []
    listed = client.get(f"{API}/storage/deleted?kind=sweeps").json()
    assert [row["deleted"] for row in listed] == [address]
    assert client.post(deleted["restore"]).json()["title"] == "Rank of Linocut"
    assert len(client.get(f"{API}/runs").json()) == 6
    assert client.request("DELETE", deleted["forever"]).status_code == 409
    client.request("DELETE", address)
    gone = client.request("DELETE", deleted["forever"]).json()
    assert gone["title"] == "the sweep “Rank of Linocut”"
    assert gone["files"] > 0
    assert client.get(f"{API}/storage/deleted?kind=sweeps").json() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"run": None}, "either run or between"),
        ({"axes": {"rank": [2] * 65}}, "64"),
        ({"axes": {"x" * 70: [1, 2]}}, "characters"),
        ({"configurations": [{"rank": 2}, {"rank": 2}], "axes": {}}, "equal"),
        ({"configurations": [{"rank": 2}, {"rank": 999}], "axes": {}}, "256 at most"),
        ({"configurations": [{"rank": 2}, {"sample_seed": 9}], "axes": {}}, "cannot differ"),
        ({"seeds": 1}, "2 to 16"),
        ({"seeds": 10**9}, "2 to 16"),
        ({"title": "x" * 1_000_000}, "120"),
        ({"between": [1, 2], "run": None, "axes": {}}, "does not exist"),
    ],
)
def test_a_bad_request_says_what_is_wrong(
    client: TestClient, images: Dataset, changes: dict[str, Any], says: str
) -> None:
    answer = client.post(f"{API}/sweeps", json=body(images, **changes))
    assert answer.status_code in (404, 422)
    assert says in answer.text
    assert len(answer.text) < 4_000
