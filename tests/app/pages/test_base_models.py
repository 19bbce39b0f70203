"""The page of base models."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.base_models.models import BaseModel, BaseModelStatus
from app.state import AppState


def test_the_embedded_base_is_listed_with_its_facts(client: TestClient) -> None:
    page = client.get("/base-models").text
    assert "built in" in page
    assert "64 px" in page
    assert "hx-trigger" not in page.partition('id="bases"')[2].partition(">")[0]


def test_a_base_is_added_by_its_path_and_followed_while_it_is_looked_at(
    client: TestClient, tmp_path: Path
) -> None:
    folder = tmp_path / "my-base"
    folder.mkdir()
    page = client.post("/base-models", data={"source": str(folder)}).text
    assert "my-base" in page
    assert "Being checked" in page
    assert 'hx-trigger="every 2s"' in page
    twice = client.post("/base-models", data={"source": str(folder)})
    assert twice.status_code == 409
    assert "is already this base model" in twice.text


def test_a_path_that_cannot_be_used_comes_back_with_its_reason(client: TestClient) -> None:
    answer = client.post("/base-models", data={"source": "/nowhere/at all"})
    assert answer.status_code == 422
    assert 'value="/nowhere/at all"' in answer.text
    assert "There is nothing at /nowhere/at all" in answer.text
    assert client.post("/base-models", data={}).status_code == 422


def test_a_base_that_failed_says_why(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        session.add(
            BaseModel(
                slug="bad",
                name="bad",
                source="/models/bad",
                status=BaseModelStatus.FAILED,
                error="This folder holds no UNet.",
            )
        )
    page = client.get("/base-models").text
    assert "Failed" in page
    assert "This folder holds no UNet." in page
