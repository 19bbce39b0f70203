"""Runs through the REST API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.runs import Run, Sample

Png = Callable[..., bytes]


@pytest.fixture
def dataset_id(client: TestClient, png: Png) -> int:
    key = client.post("/api/v1/datasets", json={"name": "Chalk"}).json()["id"]
    client.post(f"/api/v1/datasets/{key}/images", files=[("files", ("fox.png", png()))])
    return int(key)


def start(client: TestClient, dataset_id: int, **body: Any) -> int:
    answer = client.post("/api/v1/runs", json={"dataset_id": dataset_id} | body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "queued"
    return int(answer.json()["id"])


def test_a_run_is_accepted_and_can_be_watched(client: TestClient, dataset_id: int) -> None:
    key = start(client, dataset_id, preset="quick", name="Mine", config={"steps": 12})
    run = client.get(f"/api/v1/runs/{key}").json()
    shown = {name: run[name] for name in ("name", "status", "step", "total_steps", "loss")}
    assert shown == {"name": "Mine", "status": "queued", "step": 0, "total_steps": 12, "loss": None}
    assert [row["id"] for row in client.get("/api/v1/runs?status=queued").json()] == [key]
    assert client.get(f"/api/v1/runs/{key}/metrics").json() == {"last_step": 0, "series": {}}
    assert client.get(f"/api/v1/runs/{key}/checkpoints").json() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"preset": "heroic"}, "preset"),
        ({"config": {"steps": -1}}, "steps"),
        ({"config": {"no_such": 1}}, "no_such"),
        ({"base_model": "sd-9"}, "base_model"),
        ({"dataset_id": 999}, "dataset_id"),
        ({"name": "x" * 500}, "name"),
        ({"color": 1}, "color"),
    ],
)
def test_a_wrong_run_names_its_field(
    client: TestClient, dataset_id: int, body: dict[str, Any], field: str
) -> None:
    answer = client.post("/api/v1/runs", json={"dataset_id": dataset_id} | body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert f"{field}: " in answer.json()["detail"]
    assert client.get("/api/v1/runs").json() == []


@pytest.mark.parametrize("word", ["regularization", "regularisation"])
def test_old_names_are_accepted(
    client: TestClient, dataset_id: int, png: Png, state: AppState, word: str
) -> None:
    key = client.post("/api/v1/datasets", json={"name": "Photos"}).json()["id"]
    client.post(f"/api/v1/datasets/{key}/images", files=[("files", ("fox.png", png()))])
    body = {f"{word}_dataset_id": key, "config": {f"{word}_weight": 0.5}}
    run_id = start(client, dataset_id, **body)
    config = client.get(f"/api/v1/runs/{run_id}").json()["config"]
    assert {name: config[name] for name in config if name.startswith("regul")} == {
        "regularization_weight": 0.5
    }
    with state.database.read() as session:
        assert session.get_one(Run, run_id).regularization_version_id is not None
    again = {"config": {f"{word}_weight": 0.75}, "continues": None}
    assert start(client, dataset_id, **again) == run_id + 1


def test_different_values_under_both_names_are_refused(client: TestClient, dataset_id: int) -> None:
    both = {"regularisation_weight": 0.5, "regularization_weight": 1.0}
    for body in (
        {"config": both},
        {"regularisation_dataset_id": 1, "regularization_dataset_id": 2},
    ):
        answer = client.post("/api/v1/runs", json={"dataset_id": dataset_id} | body)
        assert answer.status_code == 422
        assert "is the old name of “regularization_" in answer.json()["detail"]
    assert client.get("/api/v1/runs").json() == []


def test_an_empty_dataset_is_refused(client: TestClient) -> None:
    key = client.post("/api/v1/datasets", json={"name": "Nothing"}).json()["id"]
    answer = client.post("/api/v1/runs", json={"dataset_id": key})
    assert answer.status_code == 422
    assert "no images yet" in answer.json()["detail"]


def test_cancel_twice_is_no_mistake(client: TestClient, dataset_id: int) -> None:
    key = start(client, dataset_id)
    for _ in range(2):
        answer = client.post(f"/api/v1/runs/{key}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "canceled")
    late = client.post(f"/api/v1/runs/{key}/stop")
    assert late.status_code == 409
    assert "canceled" in late.json()["detail"]


def test_a_training_can_be_asked_to_stop_sample_and_save(
    client: TestClient, dataset_id: int, state: AppState
) -> None:
    key = start(client, dataset_id)
    with state.database.write() as session:
        jobs.claim_next(session, Run, lease_seconds=30)
    for wish in ("stop", "sample", "save"):
        assert client.post(f"/api/v1/runs/{key}/{wish}").status_code == 202
    with state.database.read() as session:
        run = session.get_one(Run, key)
    assert run.stop_requested
    assert run.sample_requested
    assert run.save_requested


def test_samples_are_listed_by_step_and_prompt(
    client: TestClient, dataset_id: int, state: AppState
) -> None:
    key = start(client, dataset_id)
    with state.database.write() as session:
        for step, prompt in ((10, 0), (0, 1), (0, 0)):
            session.add(
                Sample(
                    run_id=key, step=step, prompt_index=prompt, prompt="p", seed=1, sha256="a" * 64
                )
            )
    rows = client.get(f"/api/v1/runs/{key}/samples").json()
    assert [(row["step"], row["prompt_index"]) for row in rows] == [(0, 0), (0, 1), (10, 0)]
    assert rows[0]["url"] == "/media/" + "a" * 64
    assert rows[0]["thumbnail_url"] == "/media/" + "a" * 64 + "/small"
    first = client.get(f"/api/v1/runs/{key}/samples?limit=2")
    assert (first.json(), first.headers["x-total-count"]) == (rows[:2], "3")
    assert client.get(first.links["next"]["url"]).json() == rows[2:]


def test_a_dataset_a_run_uses_cannot_be_deleted(client: TestClient, dataset_id: int) -> None:
    start(client, dataset_id, name="Mine")
    answer = client.delete(f"/api/v1/datasets/{dataset_id}")
    assert answer.status_code == 409
    assert "“Mine” uses this dataset" in answer.json()["detail"]


def test_there_is_no_run_nine(client: TestClient) -> None:
    for place in ("", "/metrics", "/samples", "/checkpoints"):
        assert client.get(f"/api/v1/runs/9{place}").status_code == 404
    assert client.post("/api/v1/runs/9/cancel").status_code == 404
