"""Deleted adapters over REST."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.registry.adapters.service import order_file
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.state import AppState
from tests import fake_workers
from worker.core.words import FileFormat, WeightDtype

API = "/api/v1/adapters"
FOREVER = "/api/v1/storage/forever/adapters"
DELETED = "/api/v1/storage/deleted?kind=adapters"


def test_they_are_listed_in_linked_parts_and_deleted_for_good(
    client: TestClient, state: AppState
) -> None:
    for name in ("One", "Two", "Three"):
        with state.database.write() as session:
            key = publish(session, NewVersion(name, "sd1", "0" * 64, 1, 1, 1.0)).adapter_id
        assert client.delete(f"{API}/{key}").status_code == 200
    first = client.get(f"{DELETED}&limit=2")
    assert first.headers["x-total-count"] == "3"
    assert [row["name"] for row in first.json()] == ["Three", "Two"]
    row = first.json()[0]
    assert row["about"] == "SD 1.x, 1 version"
    assert row["deleted_at"]
    second = client.get(first.links["next"]["url"])
    assert [row["name"] for row in second.json()] == ["One"]
    assert "next" not in second.links
    assert client.delete(row["forever"]).status_code == 200
    assert client.get(DELETED).headers["x-total-count"] == "2"
    assert client.delete(row["forever"]).status_code == 404
    assert client.post(row["restore"]).status_code == 404


def test_it_is_refused_with_a_sentence_before_its_time(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    refused = client.delete(f"{FOREVER}/{adapter.key}")
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("This adapter is not deleted.")
    with state.database.write() as session:
        order_file(session, 1, ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.FP16))
    client.delete(f"{API}/{adapter.key}")
    refused = client.delete(f"{FOREVER}/{adapter.key}")
    assert refused.status_code == 409
    assert "is used by 1 job." in refused.json()["detail"]
