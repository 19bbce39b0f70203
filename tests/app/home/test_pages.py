"""The first page: how to begin when there is nothing, else where a person was."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.datasets import service as datasets
from app.registry.db import utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.runs import requests
from app.registry.runs import service as runs
from app.registry.runs.requests import RunRequest
from app.registry.state import AppState
from app.registry.tables.runs import RUINED, Run
from app.web.datasets import example_pages
from app.web.datasets.example_pages import ExampleOffer, example_offers
from tests import fake_workers
from worker.core.starter.examples import CHALKBOARD, EXAMPLES, Example


@pytest.fixture
def example(client: TestClient) -> str:
    answer = client.post("/example", follow_redirects=False)
    assert answer.status_code == 303
    location: str = answer.headers["location"]
    return location


def test_a_new_person_sees_three_steps_and_the_examples(client: TestClient) -> None:
    text = client.get("/").text
    for words in ("1. Add images", "2. Train", "3. Try"):
        assert words in text
    assert 'href="/datasets#field-name">Use my own images</a>' in text
    for example in EXAMPLES.values():
        assert f"Try {example.title}" in text
        assert example.description in text


def test_every_picture_of_an_example_on_the_first_page_is_there(client: TestClient) -> None:
    pictures = re.findall(r'src="(/example/[^"]+)"', client.get("/").text)
    assert len(pictures) == len(set(pictures)) == 3 * len(EXAMPLES)
    for picture in pictures:
        assert client.get(picture).headers["content-type"] == "image/webp", picture


@pytest.mark.parametrize("sheet", [None, "favicon.svg"])
def test_what_training_reaches_is_shown_once_its_sheet_is_made(
    sheet: str | None, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = [ExampleOffer(CHALKBOARD, sheet)]
    monkeypatch.setattr("app.web.home.pages.example_offers", lambda: offers)
    text = client.get("/").text
    assert text.count("What training reaches") == (sheet is not None)
    assert text.count('<img src="/static/favicon.svg') == (sheet is not None)


def test_a_sheet_is_offered_if_it_was_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "linocut.webp").touch()
    monkeypatch.setattr(example_pages, "STATIC", tmp_path)
    sheets = {offer.example.key: offer.sheet for offer in example_offers()}
    assert sheets == {"chalkboard": None, "linocut": "examples/linocut.webp"}


@pytest.mark.parametrize("chosen", EXAMPLES.values(), ids=lambda example: example.key)
def test_an_example_is_a_dataset_like_any_other(
    client: TestClient, state: AppState, chosen: Example
) -> None:
    answer = client.post("/example", data={"style": chosen.key}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/datasets/{chosen.key}"
    count = len(list(chosen.folder.glob("*.webp")))
    with state.database.read() as session:
        row = datasets.summary(session, datasets.dataset_by_slug(session, chosen.key))
    assert (row.image_count, row.captioned_count) == (count, count)
    assert row.dataset.trigger_word == chosen.trigger
    by_api = client.post("/api/v1/examples", json={"style": chosen.key})
    assert (by_api.status_code, by_api.json()["image_count"]) == (200, count)
    assert by_api.headers["location"] == f"/api/v1/datasets/{row.dataset.key}"
    again = client.post("/example", data={"style": chosen.key}, follow_redirects=False)
    assert again.headers["location"] == answer.headers["location"]
    with state.database.read() as session:
        assert len(datasets.list_datasets(session)) == 1


def test_an_example_is_created_by_the_api(client: TestClient) -> None:
    made = client.post("/api/v1/examples", json={"style": CHALKBOARD.key})
    assert (made.status_code, made.json()["slug"]) == (201, CHALKBOARD.key)
    assert client.get(made.headers["location"]).json() == made.json()
    assert client.post("/api/v1/examples", json={"style": "neon"}).status_code == 404


def test_without_a_choice_the_example_is_the_chalkboard(example: str) -> None:
    assert example == f"/datasets/{CHALKBOARD.key}"


def test_a_dataset_from_an_older_example_is_shown_as_it_is(
    client: TestClient, state: AppState
) -> None:
    """Its images differ from today's; a person may have captioned and trained on them."""
    older = fake_workers.dataset(state, CHALKBOARD.title, pictures=2)
    answer = client.post("/example", follow_redirects=False)
    assert answer.headers["location"] == f"/datasets/{older.slug}"
    assert client.get(answer.headers["location"]).status_code == 200
    with state.database.read() as session:
        assert datasets.summary(session, datasets.get_dataset(session, older.key)).image_count == 2


@pytest.mark.parametrize("style", ["neon", "x" * 300, "..", "chalkboard/fox"])
def test_an_unknown_example_names_those_there_are(client: TestClient, style: str) -> None:
    answer = client.post("/example", data={"style": style})
    assert answer.status_code == 404
    assert "Choose chalkboard or linocut." in answer.text


def test_the_other_example_is_offered_beside_the_datasets(client: TestClient, example: str) -> None:
    page = client.get("/datasets").text
    assert example in page
    assert 'name="style" value="linocut"' in page


def test_a_person_who_comes_back_sees_runs_and_datasets(
    client: TestClient, state: AppState, example: str
) -> None:
    with state.database.write() as session:
        dataset = datasets.dataset_by_slug(session, "chalkboard")
        run = requests.create_run(session, RunRequest(dataset_id=dataset.key, name="First light"))
    text = client.get("/").text
    assert "Try Chalkboard" not in text
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
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.sample(10)
    text = client.get("/home/runs").text
    assert text.count("<article") == 5
    assert text.count("sample-strip") == 1
    assert '<span class="hint">Step 10</span>' in text
    assert "3 more runs" in text
    assert "7 waiting" in client.get("/running").text


@pytest.mark.parametrize(
    "name", ["chalkboard/nothing", "chalkboard/..%2Fmetadata", "linocut/FOX", "neon/fox", "fox"]
)
def test_only_pictures_of_the_examples_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/example/{name}.webp").status_code == 404


def test_the_strip_names_the_runs_that_ended_a_short_time_ago(
    client: TestClient, state: AppState
) -> None:
    of = fake_workers.dataset(state, "It's <chalk>")
    for end in ("finish", "fail", "cancel", "old"):
        run = fake_workers.queued_run(state, of)
        training = fake_workers.FakeTraining(state)
        training.train(3)
        if end == "fail":
            training.fail("dataset", "An image is damaged.")
        elif end == "finish":
            training.finish()
        else:
            training.cancel()
        if end == "old":
            with state.database.write() as session:
                session.get_one(Run, run.key).finished_at = utcnow() - timedelta(minutes=11)
    assert "data-ended" not in client.get("/running").text
    strip = client.get("/running?ended=true").text
    ended = json.loads(re.search("data-ended='(.*?)'", strip)[1])  # type: ignore[index]
    assert [(row["title"], row["text"], row["href"]) for row in ended] == [
        ("“It's <chalk>” was canceled", "It had trained 3 steps.", "/runs/3"),
        ("“It's <chalk>” has failed", "An image is damaged.", "/runs/2"),
        ("“It's <chalk>” has finished", "Trained 3 steps.", "/runs/1"),
    ]
    assert len({row["key"] for row in ended}) == 3
    with state.database.write() as session:
        run = session.get_one(Run, 1)
        run.outcome, run.outcome_reason = RUINED, "The samples carry no image."
    strip = client.get("/running?ended=true").text
    assert "has finished, ruined" in strip
    assert "The samples carry no image." in strip
