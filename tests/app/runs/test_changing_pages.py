"""Settings of a run are changed on a page and by the API until it ends."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from tests import fake_workers
from tests.app.runs.test_changing import take
from tests.app.runs.test_pages import form_of
from tests.fake_workers import FakeTraining

ADDRESS = "/api/v1/runs/1"


@pytest.fixture
def training(client: TestClient, state: AppState) -> FakeTraining:
    """Run 1 at step 12 of 40."""
    fake_workers.queued_run(state, fake_workers.dataset(state))
    found = FakeTraining(state)
    found.train(12)
    return found


def form(client: TestClient) -> dict[str, str]:
    return form_of(client.get("/runs/1/change").text, "run-change")


def test_the_page_changes_a_run_that_trains_and_its_history_tells(
    client: TestClient, state: AppState, training: FakeTraining
) -> None:
    page = client.get("/runs/1").text
    assert 'href="/runs/1/change"' in page
    live = re.search(r'hx-get="([^"]+/live[^"]+)"', page)
    assert live is not None
    sent = form(client)
    assert (sent["steps"], sent["patience"]) == ("40", "0")
    answer = client.post("/runs/1/change", data=sent | {"steps": "90"}, follow_redirects=False)
    assert answer.headers["location"] == "/runs/1"
    assert "Steps: 40 → 90 (from the next step on)" in client.get("/runs/1").text
    assert form(client)["steps"] == "90"
    take(state, training, 13)
    parts = client.get(html.unescape(live[1])).text
    assert "Steps: 40 → 90 (from step 13 on)" in parts
    assert 'id="run-settings-now" hx-swap-oob="true"' in parts
    assert "Step 12 of 90" in parts
    training.finish()
    page = client.get("/runs/1").text
    assert "/runs/1/change" not in page
    assert client.get("/runs/1/change", headers={"accept": "text/html"}).status_code == 409


def test_two_people_at_once(client: TestClient, state: AppState, training: FakeTraining) -> None:
    mine, other = form(client), form(client)
    client.post("/runs/1/change", data=other | {"steps": "90"})
    client.post("/runs/1/change", data=mine | {"patience": "3"})  # another field: nothing is lost
    assert client.get(ADDRESS).json()["change_requested"] == {"steps": 90, "patience": 3}


def test_what_cannot_be_is_said_beside_its_field(
    client: TestClient, training: FakeTraining
) -> None:
    answer = client.post("/runs/1/change", data=form(client) | {"steps": "11"})
    assert answer.status_code == 422
    assert "12 steps are done: enter at least 12." in answer.text
    answer = client.post("/runs/1/change", data=form(client) | {"steps": "", "patience": "101"})
    assert answer.text.count("field-error") == 2


def test_the_api_changes_a_run_until_it_ends(
    client: TestClient, state: AppState, training: FakeTraining
) -> None:
    found = client.patch(ADDRESS, json={"steps": 60, "name": "Longer"}).json()
    assert (found["name"], found["total_steps"]) == ("Longer", 40)
    assert (found["change_requested"], found["changes"]) == ({"steps": 60}, [])
    take(state, training, 12)
    found = client.get(ADDRESS).json()
    assert (found["total_steps"], found["config"]["steps"]) == (60, 60)
    assert found["change_requested"] is None
    assert found["changes"] == [{"step": 12, "before": {"steps": 40}, "after": {"steps": 60}}]
    for body, status in (
        ({"steps": 3}, 422),
        ({"steps": 0}, 422),
        ({"steps": 10**9}, 422),
        ({"steps": "60"}, 422),
        ({"steps": None}, 422),
        ({"steps": 60}, 200),
        ({"rank": 4}, 422),
    ):
        assert client.patch(ADDRESS, json=body).status_code == status, body
    training.finish()
    refused = client.patch(ADDRESS, json={"steps": 90, "name": "Too late"})
    assert refused.status_code == 409
    assert "Continue training from one of its checkpoints" in refused.json()["detail"]
    assert client.get(ADDRESS).json()["name"] == "Longer"  # all of a request, or nothing
