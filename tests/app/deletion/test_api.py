"""Deleting for good over REST."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.registry.adapters.library import cards
from app.registry.adapters.library.cards import AdapterSummary
from app.registry.deletion import things
from app.registry.runs import service as runs
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from tests import fake_workers

API = "/api/v1"
FOREVER = f"{API}/storage/forever"
RESTORABLE = (
    *("runs/1", "adapters/1/versions/1"),
    *("renders/2", "adapters/1", "datasets/1", "images/1"),
)


def size(state: AppState) -> int:
    return sum(blob.size for blob in state.store.list())


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("address", "query"),
    [
        ("runs/1", ""),
        ("runs/1/checkpoints/20", ""),
        ("renders/2", ""),
        ("renders", "?older_than_days=0"),
        ("checkpoints", "?older_than_days=0"),
        ("adapters/1/versions/1", ""),
        ("adapters/1", ""),
        ("datasets/1", "?with_runs=true"),
        ("images/1", "?with_runs=true"),
    ],
)
def test_what_is_announced_is_what_is_freed(
    client: TestClient, state: AppState, address: str, query: str
) -> None:
    forever = f"{FOREVER}/{address}{query}"
    before = size(state)
    if address in RESTORABLE:
        assert client.get(forever).status_code == 409
        deleted = client.delete(f"{API}/{address}").json()
        assert (deleted["forever"], deleted["freed_bytes"]) == (f"{FOREVER}/{address}", 0)
        assert size(state) == before
    announced = client.get(forever)
    assert announced.status_code == 200, announced.text
    assert client.delete(forever).json() == announced.json()
    assert before - size(state) == announced.json()["size_bytes"] > 0
    assert client.get(forever).status_code == (200 if "older_than_days" in query else 404)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("address", RESTORABLE)
def test_what_is_deleted_is_restored_as_it_was(client: TestClient, address: str) -> None:
    read = address.rpartition("/")[0] if "checkpoints" in address else address
    before = client.get(f"{API}/{read}").json()
    deleted = client.delete(f"{API}/{address}").json()
    assert deleted["deleted"] == f"{API}/{address}"
    for _ in range(2):  # restoring twice is no error
        assert client.post(deleted["restore"]).status_code == 200
    assert client.get(f"{API}/{read}").json() == before


def test_everything_needs_how_old_it_has_to_be(client: TestClient) -> None:
    for address in ("renders", "checkpoints"):
        assert client.delete(f"{FOREVER}/{address}").status_code == 422
        assert client.delete(f"{FOREVER}/{address}?older_than_days=-1").status_code == 422
        assert client.delete(f"{FOREVER}/{address}?older_than_days=99999999").status_code == 422


def test_what_has_not_ended_is_a_conflict_with_a_sentence(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    answer = client.delete(f"{API}/runs/1")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "“Chalk” is waiting. Cancel it first, then delete it."
    with state.database.read() as session:
        assert runs.get_run(session, 1)


@pytest.mark.usefixtures("filled")
def test_a_run_that_is_deleted_twice_says_that_it_can_be_restored(client: TestClient) -> None:
    answers = [client.delete(f"{API}/runs/1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert answers[1].json()["detail"].startswith("This run was deleted. You can restore it")


def test_what_does_not_exist_is_not_found(client: TestClient) -> None:
    for address in (
        *("runs/9", "runs/9/checkpoints", "runs/9/checkpoints/3", "renders/9"),
        *("datasets/9", "images/9", "adapters/9", "adapters/9/versions/1", "runs/x", "grids/9"),
        "recipes/9",
    ):
        assert client.delete(f"{FOREVER}/{address}").status_code == 404, address


@pytest.mark.usefixtures("filled")
def test_what_is_deleted_is_listed_by_kind(client: TestClient) -> None:
    listed = {
        "datasets": ("datasets/1", "3 images, 1 run trained on it"),
        "versions": ("adapters/1/versions/1", "version 1"),
        "runs": ("runs/1", "run 1"),
        "adapters": ("adapters/1", "SD 1.x, 1 version"),
    }
    for kind, (place, about) in listed.items():
        assert client.get(f"{API}/storage/deleted?kind={kind}").json() == []
        client.delete(f"{API}/{place}")
        answer = client.get(f"{API}/storage/deleted?kind={kind}")
        assert answer.headers["x-total-count"] == "1"
        (row,) = answer.json()
        assert (row["name"], row["about"], row["deleted"]) == ("Chalk", about, f"{API}/{place}")
        assert row["deleted_at"]


def test_a_program_reads_what_is_deleted_part_by_part(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[int] = []

    def summarize(session: Session, rows: Sequence[Adapter]) -> list[AdapterSummary]:
        described.append(len(rows))
        return cards.summarize(session, rows)

    monkeypatch.setattr(things, "summarize", summarize)
    keys = [fake_workers.adapter(state, name).key for name in ("One", "Two", "Three")]
    for key in keys:
        client.delete(f"{API}/adapters/{key}")
    address = f"{API}/storage/deleted?kind=adapters&limit=1"
    names = []
    while address:
        answer = client.get(address)
        (row,) = answer.json()
        names.append(row["name"])
        client.post(row["restore"])  # the next part begins where this one ended
        address = answer.links.get("next", {}).get("url", "")
    assert names == ["Three", "Two", "One"]
    assert described == [2, 2, 1]
    foreign = client.get(f"{API}/storage/deleted?kind=adapters&cursor=x")
    assert foreign.status_code == 422


@pytest.mark.usefixtures("filled")
def test_a_training_state_alone_is_only_deleted_for_good(client: TestClient) -> None:
    place = "runs/1/checkpoints/20"
    refused = client.delete(f"{API}/{place}")
    assert refused.status_code == 409
    assert "Only its training state is left" in refused.json()["detail"]
    assert client.delete(f"{FOREVER}/{place}").json()["goes"] == ["1 checkpoint"]


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
