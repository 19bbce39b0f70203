"""Base models through the REST API."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

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
        ("relative/place", "whole path"),
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
