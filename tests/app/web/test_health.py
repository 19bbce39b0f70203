"""Probes and figures."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.registry.config import Settings
from app.registry.state import AppState
from app.web.main import create_app


def test_it_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["database"] == "ok"


def test_it_is_not_ready_on_an_old_database(client: TestClient, state: AppState) -> None:
    with state.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "migrate" in answer.json()["detail"]


def test_prometheus_reads_the_number_of_datasets(client: TestClient) -> None:
    client.post("/api/v1/datasets", json={"name": "a"})
    text = client.get("/metrics").text
    assert "brushwork_datasets 1.0" in text
    assert 'brushwork_jobs{queue="io",status="queued"} 1.0' in text


def test_the_api_describes_itself(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for place in (
        "/api/v1/datasets/{dataset_id}/images",
        "/api/v1/runs/{run_id}/metrics",
        "/api/v1/adapters/{adapter_id}/download",
        "/api/v1/renders/{render_id}",
    ):
        assert place in paths


def test_an_unknown_address_is_a_problem(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_starting_registers_the_embedded_base_once_and_ready_to_use(settings: Settings) -> None:
    for _ in range(2):
        with TestClient(create_app(settings)) as client:
            bases = client.get("/api/v1/base-models").json()
    assert [(base["slug"], base["status"]) for base in bases] == [("starter", "ready")]
    assert bases[0]["family"] == "sd1"
