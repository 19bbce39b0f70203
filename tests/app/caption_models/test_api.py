"""Caption models through the REST API."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.datasets import service as datasets
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from tests.app.caption_models.test_pages import MEGABYTE, add_ready
from tests.app.datasets.test_service import picture

API = "/api/v1/caption-models"


def test_a_folder_is_added_listed_checked_and_removed(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    folder = tmp_path / "My BLIP"
    folder.mkdir()
    answer = client.post(API, json={"source": str(folder)})
    model = answer.json()
    assert answer.status_code == 202
    assert (model["slug"], model["status"], model["source"]) == ("my-blip", "checking", str(folder))
    assert (model["family"], model["size_bytes"], model["download"]) == (None, None, None)
    assert client.post(API, json={"source": str(folder)}).status_code == 409
    assert client.get(f"{API}/{model['id']}").json() == model
    assert client.get(API).json() == [model]
    assert client.post(f"{API}/{model['id']}/check").status_code == 409
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "check_caption_model")).one()
        assert job.subject_id == model["id"]
    assert client.delete(f"{API}/{model['id']}").status_code == 204
    assert folder.is_dir()
    for method, path in (("GET", ""), ("POST", "/check"), ("POST", "/cancel"), ("DELETE", "")):
        assert client.request(method, f"{API}/{model['id']}{path}").status_code == 404


def test_a_download_shows_its_progress_stops_and_goes_on(
    client: TestClient, state: AppState
) -> None:
    model = client.post(API, json={"source": "acme/tiny@v2"}).json()
    address = f"{API}/{model['id']}"
    assert (model["status"], model["source"]) == ("downloading", "acme/tiny@v2")
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_caption_model")).one()
        job.result = {"bytes_done": 500, "bytes_total": 2000, "file": "model.safetensors"}
        session.add(job)
    assert client.get(address).json()["download"] == {
        "bytes_done": 500,
        "bytes_total": 2000,
        "file": "model.safetensors",
    }
    assert client.delete(address).status_code == 409
    stopped = client.post(f"{address}/cancel").json()
    assert (stopped["status"], stopped["download"]) == ("failed", None)
    assert "was stopped" in stopped["error"]
    assert client.post(f"{address}/check").json()["status"] == "downloading"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/place", "does not exist"),
        ("./relative/place", "absolute path"),
        ("a\0b", "path"),
        ("", "source"),
        (MEGABYTE, "at most 1,000"),
    ],
    ids=["missing", "relative", "null", "empty", "long"],
)
def test_a_wrong_place_says_what_to_do(client: TestClient, source: str, reason: str) -> None:
    answer = client.post(API, json={"source": source})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "source"
    assert reason in answer.text


def test_captions_take_a_local_model_by_id_or_slug(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    with state.database.write() as session:
        dataset = datasets.create_dataset(session, "Chalk")
        datasets.add_images(session, dataset.key, [picture(0)])
    add_ready(state, tmp_path)
    of = "/api/v1/datasets/1/captions"
    found = {one["provider"]: one for one in client.get(f"{of}/providers").json()["providers"]}
    assert (found["local"]["model_id"], found["local"]["takes_prompt"]) == (1, False)
    for asked in ({"model_id": 1}, {"model": "blip"}):
        body = {"provider": "local", "image_id": 1} | asked
        assert client.post(f"{of}/previews", json=body).status_code == 202
    for asked in ({}, {"model_id": 2}, {"model": "nobody"}):
        body = {"provider": "local"} | asked
        answer = client.post(f"{of}/orders", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "provider"
