"""Base models and caption models through the REST API: what both do."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.registry.added_models.service import ModelKind
from app.registry.state import AppState
from tests.app.added_models.kinds import MEGABYTE, Models, both_kinds, make_folder

pytestmark = both_kinds
FOREVER = "/api/v1/storage/forever"


def test_a_folder_is_added_listed_and_removed(
    client: TestClient, state: AppState, tmp_path: Path, kind: ModelKind
) -> None:
    api, folder = f"/api/v1{kind.address}", make_folder(tmp_path)
    answer = client.post(api, json={"source": str(folder)})
    model = answer.json()
    assert answer.status_code == 202
    assert (model["slug"], model["status"]) == ("my-model", "checking")
    assert (model["source"], model["name"]) == (str(folder), "My Model")
    assert (model["family"], model["size_bytes"], model["download"]) == (None, None, None)
    refused = client.post(api, json={"source": str(folder)})
    assert (refused.status_code, "already" in refused.json()["detail"]) == (409, True)
    assert client.get(f"{api}/{model['id']}").json() == model
    assert model in client.get(api).json()
    with state.database.read() as session:
        job = Models(session, kind).newest_job()
        assert (job.kind, job.subject_id) == (kind.check.kind, model["id"])
    removal = f"{FOREVER}{kind.address}/{model['id']}"
    announced = client.get(removal).json()
    assert (announced["files"], announced["size_bytes"]) == (0, 0)  # the files of a folder stay
    assert client.delete(removal).json() == announced
    assert folder.is_dir()
    address = f"{api}/{model['id']}"
    for method, path in (("GET", address), ("POST", f"{address}/cancel"), ("DELETE", removal)):
        assert client.request(method, path).status_code == 404


def test_a_download_shows_its_progress_until_it_is_stopped(
    client: TestClient, state: AppState, kind: ModelKind
) -> None:
    model = client.post(f"/api/v1{kind.address}", json={"source": "acme/tiny@v2"}).json()
    address = f"/api/v1{kind.address}/{model['id']}"
    assert (model["status"], model["source"]) == ("downloading", "acme/tiny@v2")
    assert model["download"] == {"bytes_done": 0, "bytes_total": None, "file": ""}
    progress = {"bytes_done": 500, "bytes_total": 2000, "file": "model.safetensors"}
    with state.database.write() as session:
        job = Models(session, kind).newest_job()
        assert job.kind == kind.download
        assert {"repo": "acme/tiny", "revision": "v2"}.items() <= job.args.items()
        job.result = progress
        session.add(job)
    assert client.get(address).json()["download"] == progress
    assert client.delete(address.replace("/api/v1", FOREVER)).status_code == 409
    stopped = client.post(f"{address}/cancel").json()
    assert (stopped["status"], stopped["download"]) == ("failed", None)
    assert client.post(f"{address}/cancel").status_code == 202  # twice is no mistake


def test_a_wrong_source_is_refused_with_the_reason(client: TestClient, kind: ModelKind) -> None:
    for source, reason in (("/no/such/place", "does not exist"), (MEGABYTE, "at most 1,000")):
        answer = client.post(f"/api/v1{kind.address}", json={"source": source})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "source"
        assert reason in answer.text
