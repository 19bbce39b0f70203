"""Deleting for good over REST."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.runs import service as runs
from app.registry.state import AppState
from tests import fake_workers

API = "/api/v1"


def size(state: AppState) -> int:
    return sum(blob.size for blob in state.store.list())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("preview", "address"),
    [
        ("runs/1/deletion", "runs/1"),
        ("renders/2/deletion", "renders/2"),
        ("renders/deletion?older_than_days=0", "renders?older_than_days=0"),
        ("checkpoints/deletion?older_than_days=0", "checkpoints?older_than_days=0"),
        ("adapters/1/versions/1/deletion", "adapters/1/versions/1"),
        ("adapters/1/deletion", "adapters/1/forever"),
        ("datasets/1/deletion?with_runs=true", "datasets/1/forever?with_runs=true"),
        ("images/1/deletion?with_runs=true", "images/1/forever?with_runs=true"),
    ],
)
def test_what_is_announced_is_what_is_freed(
    client: TestClient, state: AppState, preview: str, address: str
) -> None:
    two_steps = address.partition("/forever")[0] if "forever" in address else None
    if two_steps:
        assert client.get(f"{API}/{preview}").status_code == 409
        assert client.delete(f"{API}/{two_steps}").status_code == 204
    before = size(state)
    announced = client.get(f"{API}/{preview}")
    assert announced.status_code == 200, announced.text
    answer = client.delete(f"{API}/{address}")
    assert before - size(state) == announced.json()["size_bytes"]
    if answer.status_code != 204:
        assert answer.json() == announced.json()
    assert announced.json()["size_bytes"] > 0
    again = client.get(f"{API}/{preview}")
    assert again.status_code == (200 if "older_than_days" in address else 404)


def test_everything_needs_how_old_it_has_to_be(client: TestClient) -> None:
    for address in ("renders", "checkpoints"):
        assert client.delete(f"{API}/{address}").status_code == 422
        assert client.delete(f"{API}/{address}?older_than_days=-1").status_code == 422
        assert client.delete(f"{API}/{address}?older_than_days=99999999").status_code == 422


def test_what_has_not_ended_is_a_conflict_with_a_sentence(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    answer = client.delete(f"{API}/runs/1")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "“Chalk” is waiting. Cancel it first, then delete it."
    with state.database.read() as session:
        assert runs.get_run(session, 1)


def test_what_does_not_exist_is_not_found(client: TestClient) -> None:
    for address in (
        *("runs/9", "runs/9/checkpoints", "runs/9/checkpoints/3", "renders/9"),
        *("datasets/9/forever", "images/9/forever", "adapters/9/versions/1", "runs/x"),
    ):
        assert client.delete(f"{API}/{address}").status_code == 404, address


def test_deleted_datasets_are_listed(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    assert client.get(f"{API}/datasets/deleted").json() == []
    client.delete(f"{API}/datasets/1")
    answer = client.get(f"{API}/datasets/deleted")
    assert answer.headers["x-total-count"] == "1"
    (row,) = answer.json()
    assert (row["id"], row["name"], row["images"], row["runs"]) == (1, "Chalk", 3, 0)


@pytest.mark.usefixtures("filled")
def test_every_file_is_counted_once_by_its_kind(client: TestClient, state: AppState) -> None:
    fake_workers.blob(state, b"nobody needs this")
    uses = client.get(f"{API}/storage").json()
    assert sum(use["size_bytes"] for use in uses if use["kind"] != "cache") == size(state)
    kinds = {use["kind"]: use["files"] for use in uses}
    assert kinds["datasets"] == 3
    assert kinds["adapters"] == 3
    assert kinds["unused"] == 1
    client.delete(f"{API}/datasets/1")
    kinds = {use["kind"]: use["files"] for use in client.get(f"{API}/storage").json()}
    assert (kinds["datasets"], kinds["pinned"]) == (0, 1)  # two are samples, too
