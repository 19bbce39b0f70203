"""The first page: how to begin when there is nothing, else where a person was."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.datasets import service as datasets
from app.registry.jobs.states import JobStatus
from app.registry.runs import service as runs
from app.registry.runs.models import Run
from app.registry.runs.service import RunRequest
from app.registry.state import AppState
from tests import fake_workers
from worker.core.starter import EXAMPLE


@pytest.fixture
def example(client: TestClient) -> str:
    answer = client.post("/example", follow_redirects=False)
    assert answer.status_code == 303
    location: str = answer.headers["location"]
    return location


def test_a_new_person_sees_three_steps_and_an_example(client: TestClient) -> None:
    text = client.get("/").text
    for words in ("1. Add images", "2. Train", "3. Try", "Try it with this example"):
        assert words in text
    assert client.get("/example/fox.webp").headers["content-type"] == "image/webp"


def test_the_example_is_a_dataset_like_any_other(
    client: TestClient, state: AppState, example: str
) -> None:
    assert example == "/datasets/chalkboard"
    count = len(list(EXAMPLE.glob("*.webp")))
    with state.database.read() as session:
        row = datasets.summary(session, datasets.dataset_by_slug(session, "chalkboard"))
    assert (row.image_count, row.captioned_count) == (count, count)
    assert row.dataset.trigger_word == "chalkboard"
    assert client.post("/example", follow_redirects=False).headers["location"] == example
    with state.database.read() as session:
        assert len(datasets.list_datasets(session)) == 1


def test_a_person_who_comes_back_sees_runs_and_datasets(
    client: TestClient, state: AppState, example: str
) -> None:
    with state.database.write() as session:
        dataset = datasets.dataset_by_slug(session, "chalkboard")
        run = runs.create_run(session, RunRequest(dataset_id=dataset.key, name="First light"))
    text = client.get("/").text
    assert "Try it with this example" not in text
    assert "First light" in text
    assert f'href="{example}"' in text
    part = client.get("/home/runs").text
    assert 'hx-trigger="poll"' in part
    with state.database.write() as session:
        runs.cancel_run(session, run.key)
    assert "hx-trigger" not in client.get("/home/runs").text
    with state.database.read() as session:
        assert session.exec(select(Run.status)).one() == JobStatus.CANCELED


def test_a_long_queue_is_counted_not_listed(client: TestClient, state: AppState) -> None:
    dataset = fake_workers.dataset(state)
    for _ in range(8):
        fake_workers.queued_run(state, dataset)
    text = client.get("/home/runs").text
    assert text.count("<article") == 5
    assert "3 more runs" in text
    assert "8 waiting" in client.get("/running").text


@pytest.mark.parametrize("name", ["nothing", "..%2Fmetadata", "FOX", "fox.webp"])
def test_only_pictures_of_the_example_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/example/{name}.webp").status_code == 404
