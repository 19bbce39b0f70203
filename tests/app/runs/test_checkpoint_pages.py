"""Checkpoints on the page of their run and in the API: tried, kept, used, compared, deleted."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.fake_workers import FakeTraining

HTML = {"accept": "text/html"}


@pytest.fixture
def training(client: TestClient, state: AppState) -> FakeTraining:
    """A run that trains, with checkpoints at 10 (saved by hand), 20 and 30 of 40 steps."""
    fake_workers.queued_run(state, fake_workers.dataset(state))
    found = FakeTraining(state)
    found.sample(0)
    for step in (10, 20, 30):
        found.train(10)
        found.checkpoint(requested=step == 10)
        found.sample(step)
    return found


def row_of(page: str, step: int) -> str:
    """The row of a step."""
    found = re.search(rf'<tr id="step-{step}"[^>]*>.*?</th>', page, re.DOTALL)
    assert found is not None
    return " ".join(html.unescape(found[0]).split())


def test_each_row_of_samples_offers_its_checkpoint(
    client: TestClient, training: FakeTraining
) -> None:
    row = row_of(client.get("/runs/1").text, 10)
    for part in (
        '<strong class="block">Step 10</strong>',
        "kept by you",
        'href="/play?adapter=chalk-run-1%4010&prompt=a%20castle" id="try-10"',
        'aria-label="Try step 10"',
        'href="/runs/1/compare?b=10" aria-label="Compare step 10"',
        'action="/runs/1/checkpoints/10/use"',
        'href="/api/v1/adapters/1/download?version=10" download aria-label="Download step 10"',
        'aria-pressed="true" aria-label="Keep step 10"',
        'href="/adapters/chalk-run-1?v=10"',
    ):
        assert part in row
    assert "Delete" not in row  # it trains
    assert "Continue" not in row
    assert "without the adapter" in row_of(client.get("/runs/1").text, 0)


def test_every_page_that_a_row_links_to_opens(client: TestClient, training: FakeTraining) -> None:
    training.finish()
    page = client.get("/runs/1").text
    links = re.findall(r'href="(/[^"]+)"', row_of(page, 20))
    assert len(links) == 5
    for link in links:
        if not link.startswith("/api"):
            assert client.get(link).status_code == 200, link
    found = client.get("/play?adapter=chalk-run-1%4020:1").text
    assert "step 20" in found


def test_a_checkpoint_is_kept_and_released(client: TestClient, training: FakeTraining) -> None:
    answer = client.post("/runs/1/checkpoints/20/keep", follow_redirects=False)
    assert answer.headers["location"] == "/runs/1#step-20"
    assert "kept by you" in row_of(client.get("/runs/1").text, 20)
    answer = client.post("/runs/1/checkpoints/20/release?before=25", follow_redirects=False)
    assert answer.headers["location"] == "/runs/1?before=25#step-20"
    assert "kept by you" not in row_of(client.get("/runs/1").text, 20)
    gone = client.post("/runs/1/checkpoints/7/keep", headers=HTML)
    assert gone.status_code == 404
    assert "no checkpoint at step 7" in gone.text
    assert "at steps: 30, 20, 10." in gone.text


def test_using_a_checkpoint_says_so_and_marks_it(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.cancel()
    page = client.get("/runs/1").text
    assert "Its checkpoints can still be tried, downloaded and used." in page
    for _ in range(2):
        page = client.post("/runs/1/checkpoints/20/use", headers=HTML).text
        assert "Version 1 of “Chalk” is in use now: step 20." in html.unescape(page)
    assert "in use" in row_of(page, 20)
    assert "Use this one" not in row_of(page, 20)
    page = client.post("/runs/1/checkpoints/30/use", headers=HTML).text
    assert "version 1" in row_of(page, 20)
    assert "in use" in row_of(page, 30)
    with state.database.read() as session:
        names = [row.slug for row in session.exec(select(Adapter))]
    assert names == ["chalk-run-1", "chalk"]


def test_a_stopped_run_says_the_same_number_of_steps_everywhere(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    with state.database.write() as session:
        session.get_one(Run, 1).stop_requested = True
    adapter = training.finish()
    page = client.get("/runs/1").text
    assert "Stopped and kept after 30 steps" in page
    client.post("/runs/1/checkpoints/20/use")
    found = client.get(f"/api/v1/adapters/{adapter.key}/compare?a=1&b=2").json()
    (steps,) = [row for row in found["settings"] if row["name"] == "steps"]
    assert (steps["a"], steps["b"]) == (30, 20)


def test_a_page_of_a_checkpoint_names_its_run_and_changes_nothing_else(
    client: TestClient, training: FakeTraining
) -> None:
    page = client.get("/adapters/chalk-run-1?v=20").text
    assert "<title>Chalk, step 20 · Brushwork</title>" in page
    assert 'a checkpoint of <a href="/runs/1#step-20">run 1</a>' in page
    assert "download?format=kohya&amp;dtype=fp16&amp;version=20" in page
    for part in ('action="/adapters/chalk-run-1/delete"', "Set an alias", 'name="notes"'):
        assert part not in page
    refused = client.post("/adapters/chalk-run-1/delete", headers=HTML)
    assert refused.status_code == 409
    assert "checkpoints of run 1" in refused.text
    assert client.delete("/api/v1/adapters/1").status_code == 409
    alias = client.put("/api/v1/adapters/1/aliases/best", json={"version": 20})
    assert alias.status_code == 409


def test_two_steps_are_compared_with_the_same_prompts_and_seeds(
    client: TestClient, training: FakeTraining
) -> None:
    page = client.get("/runs/1/compare").text
    assert "<title>Compare step 20 and step 30 of Chalk · Brushwork</title>" in page
    assert page.count("data-comparison>") == 2
    assert "a castle, seed 0" in page
    assert 'aria-label="Step 20 on the left, Step 30 on the right: a rocket, seed 1"' in page
    assert ">Step 10, kept</option>" in page
    base = client.get("/runs/1/compare?a=0&b=10").text
    assert "Compare base model and step 10" in base
    assert "Both are the same step" in client.get("/runs/1/compare?a=10&b=10").text
    missing = client.get("/runs/1/compare?a=10&b=11", headers=HTML)
    assert missing.status_code == 404
    assert "no samples at step 11" in missing.text


def test_a_step_is_compared_although_its_checkpoint_was_deleted(
    client: TestClient, training: FakeTraining
) -> None:
    training.cancel()
    assert client.delete("/api/v1/runs/1/checkpoints/20").status_code == 200
    page = client.get("/runs/1/compare?a=20&b=30").text
    assert ">Step 20, no checkpoint</option>" in page
    assert page.count("data-comparison>") == 2
    assert "samples only" in row_of(client.get("/runs/1").text, 20)


def test_a_run_without_samples_compares_nothing(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    answer = client.get(f"/runs/{run.key}/compare", headers=HTML)
    assert answer.status_code == 404
    assert "no samples" in answer.text


def test_hundreds_of_checkpoints_come_in_pages(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state), sample_prompts=[])
    training = FakeTraining(state)
    for _ in range(30):
        training.train(1)
        training.checkpoint()
    page = client.get(f"/runs/{run.key}").text
    assert re.findall(r'<tr id="step-(\d+)"', page) == [str(step) for step in range(30, 6, -1)]
    older = client.get(f"/runs/{run.key}?before=7").text
    assert re.findall(r'<tr id="step-(\d+)"', older) == [str(step) for step in range(6, 0, -1)]
    assert f'action="/runs/{run.key}/checkpoints/6/use?before=7"' in older
    assert "training state deleted" in row_of(older, 6)
    address = f"/api/v1/runs/{run.key}/checkpoints?limit=12"
    for first, last in ((30, 19), (18, 7), (6, 1)):
        answer = client.get(address)
        steps = [row["step"] for row in answer.json()]
        assert steps == list(range(first, last - 1, -1))
        assert answer.headers["x-total-count"] == "30"
        address = answer.links.get("next", {}).get("url", "")
    assert address == ""
    gone = client.put(f"/api/v1/runs/{run.key}/checkpoints/99/keep").json()["detail"]
    assert gone.endswith("at steps: " + ", ".join(map(str, range(30, 10, -1))) + " ….")


def test_the_live_part_brings_a_new_checkpoint(client: TestClient, training: FakeTraining) -> None:
    page = client.get("/runs/1").text
    address = html.unescape(re.search(r'hx-get="(/runs/\d+/live\?[^"]+)"', page)[1])  # type: ignore[index]
    assert 'id="run-samples"' not in client.get(address).text
    client.post("/runs/1/checkpoints/20/keep")
    assert 'id="run-samples"' in client.get(address).text


def test_the_api_lists_keeps_and_uses(client: TestClient, training: FakeTraining) -> None:
    found = client.get("/api/v1/runs/1/checkpoints").json()
    assert [(row["step"], row["kept"]) for row in found] == [(30, False), (20, False), (10, True)]
    assert all(row["adapter_id"] == 1 and row["size_bytes"] for row in found)
    assert client.put("/api/v1/runs/1/checkpoints/30/keep").json()["kept"] is True
    assert client.delete("/api/v1/runs/1/checkpoints/30/keep").json()["kept"] is False
    made = client.post("/api/v1/runs/1/checkpoints/20/use").json()
    assert made == {"adapter_id": 2, "version": 1}
    assert client.post("/api/v1/runs/1/checkpoints/20/use").json() == made
    (row,) = [r for r in client.get("/api/v1/runs/1/checkpoints").json() if r["step"] == 20]
    assert (row["used_as"], row["in_use"]) == (made, True)
    render = {"prompt": "a castle", "adapters": [{"id": 1, "version": 30}]}
    assert client.post("/api/v1/renders", json=render).status_code == 202
    assert client.get("/api/v1/adapters/1/versions/30").json()["steps"] == 30
