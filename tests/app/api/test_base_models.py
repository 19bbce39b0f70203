"""Base models through the REST API."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.config import Settings
from app.main import create_app
from app.state import AppState
from app.tables import IoJob


def add(client: TestClient, source: str) -> tuple[int, str]:
    answer = client.post("/api/v1/base-models", json={"source": source})
    return answer.status_code, answer.json().get("detail", answer.json().get("status"))


def test_the_embedded_base_is_there(client: TestClient) -> None:
    (base,) = client.get("/api/v1/base-models").json()
    assert (base["slug"], base["family"], base["status"]) == ("starter", "sd1", "ready")
    assert base["resolution"] == 64
    assert base["parameters"] > 20_000_000


def test_a_folder_is_added_and_looked_at_by_an_io_worker(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    folder = tmp_path / "my base"
    folder.mkdir()
    assert add(client, str(folder)) == (202, "checking")
    with state.database.read() as session:
        job = session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
    assert job is not None
    assert job.kind == "inspect_base"
    status, detail = add(client, str(folder))
    assert status == 409
    assert "already" in detail


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/place", "nothing at"),
        ("./relative/place", "whole path"),
        ("", "source"),
        ("a\0b", "path"),
    ],
)
def test_a_wrong_place_says_what_to_do(client: TestClient, source: str, reason: str) -> None:
    status, detail = add(client, source)
    assert status == 422
    assert reason in detail


def test_a_checkpoint_that_could_run_code_is_refused(client: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"x")
    status, detail = add(client, str(file))
    assert status == 422
    assert "can run code" in detail


def test_there_is_no_base_ninety(client: TestClient) -> None:
    assert client.get("/api/v1/base-models/90").status_code == 404


def test_a_model_of_the_hub_is_ordered_by_its_name(client: TestClient, state: AppState) -> None:
    source = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    answer = client.post("/api/v1/base-models", json={"source": source})
    base = answer.json()
    assert answer.status_code == 202
    assert (base["status"], base["source"], base["name"]) == (
        "downloading",
        source,
        "stable-diffusion-v1-5",
    )
    assert base["download"] == {"bytes_done": 0, "bytes_total": None, "file": ""}
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_base")).one()
        assert job.args == {"repo": source, "revision": None, "file": None, "precision": "fp16"}
        job.result = {"bytes_done": 500, "bytes_total": 2000, "file": "unet/x.safetensors"}
        session.add(job)
    shown = client.get(f"/api/v1/base-models/{base['id']}").json()
    assert shown["download"] == {
        "bytes_done": 500,
        "bytes_total": 2000,
        "file": "unet/x.safetensors",
    }
    status, detail = add(client, source)
    assert (status, "already" in detail) == (409, True)


def test_a_download_can_be_stopped_and_the_model_put_away(client: TestClient) -> None:
    base = client.post("/api/v1/base-models", json={"source": "acme/tiny@v2/a.safetensors"}).json()
    address = f"/api/v1/base-models/{base['id']}"
    assert client.delete(address).status_code == 409
    stopped = client.post(f"{address}/cancel").json()
    assert stopped["status"] == "failed"
    assert "was stopped" in stopped["error"]
    assert client.post(f"{address}/cancel").status_code == 409
    assert add(client, "acme/tiny@v2/a.safetensors") == (202, "downloading")
    client.post(f"{address}/cancel")
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404


def test_a_base_that_was_used_or_is_built_in_stays(client: TestClient) -> None:
    answer = client.delete("/api/v1/base-models/1")
    assert answer.status_code == 409
    assert "built in" in answer.json()["detail"]


def test_the_files_of_a_removed_base_go_only_when_they_were_fused_here(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    fused = state.settings.data_dir / "fused"
    places = [fused / "inked-1-0123abcd", fused / "inked-2-0123abcd.safetensors", tmp_path / "own"]
    for place in places:
        file = place if place.suffix else place / "model_index.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")
        answer = client.post("/api/v1/base-models", json={"source": str(place)})
        assert answer.status_code == 202
        assert client.delete(f"/api/v1/base-models/{answer.json()['id']}").status_code == 204
    assert [place.exists() for place in places] == [False, False, True]
    assert fused.is_dir()


@pytest.mark.parametrize(
    ("hub", "host", "password", "expected"),
    [
        ("auto", "127.0.0.1", None, 202),
        ("auto", "0.0.0.0", "secret", 403),
        ("on", "0.0.0.0", "secret", 202),
        ("off", "127.0.0.1", None, 403),
    ],
)
def test_the_hub_is_asked_only_where_it_may_be(
    settings: Settings, hub: str, host: str, password: str | None, expected: int
) -> None:
    changed = settings.model_copy(update={"hub": hub, "host": host})
    assert password or changed.is_loopback
    with TestClient(create_app(changed)) as client:
        status, detail = add(client, "acme/tiny")
    assert status == expected
    if expected == 403:
        assert "BRUSHWORK_HUB" in detail
