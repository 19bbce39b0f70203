"""Caption models through the REST API."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.registry.datasets import service as datasets
from app.registry.state import AppState
from tests.app.caption_models.test_pages import add_ready
from tests.app.datasets.test_service import picture

API = "/api/v1/caption-models"


def test_a_model_is_checked_again_or_its_download_resumed(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    assert client.post(f"{API}/1/check").status_code == 404
    add_ready(state, tmp_path)
    assert client.post(f"{API}/1/check").json()["status"] == "checking"
    assert client.post(f"{API}/1/check").status_code == 409
    other = f"{API}/{client.post(API, json={'source': 'acme/tiny'}).json()['id']}"
    client.post(f"{other}/cancel")
    assert client.post(f"{other}/check").json()["status"] == "downloading"


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
    for asked in ({"model_id": 1}, {"model_id": "blip"}, {"model": "blip"}):
        body = {"provider": "local", "image_id": 1} | asked
        assert client.post(f"{of}/previews", json=body).status_code == 202
    for asked in ({}, {"model_id": 2}, {"model_id": "nobody"}, {"model": "nobody"}):
        body = {"provider": "local"} | asked
        answer = client.post(f"{of}/orders", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "provider"
