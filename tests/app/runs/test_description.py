"""Runs are renamed and annotated, by the API and on a page, also in two tabs at once."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.runs import checkpoints
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.runs.test_pages import form_of


@pytest.fixture
def run(state: AppState) -> Run:
    return fake_workers.queued_run(state, fake_workers.dataset(state))


def stored(state: AppState, run: Run) -> Run:
    with state.database.read() as session:
        return session.get_one(Run, run.key)


def test_a_patch_changes_what_it_names(client: TestClient, state: AppState, run: Run) -> None:
    address = f"/api/v1/runs/{run.key}"
    changed = client.patch(address, json={"name": "  Ink,\n rank 8 "}).json()
    assert (changed["name"], changed["notes"]) == ("Ink, rank 8", "")
    changed = client.patch(address, json={"notes": "Blotchy sky.\r\nMore steps?\x07"}).json()
    assert (changed["name"], changed["notes"]) == ("Ink, rank 8", "Blotchy sky.\nMore steps?")
    assert stored(state, run).sort_name == "ink, rank 8"
    for body, field in (
        ({"name": " "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "Kept?", "notes": "x" * 4_001}, "notes"),
        ({"color": 1}, "color"),
    ):
        answer = client.patch(address, json=body)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert client.get(address).json() == changed
    assert client.patch("/api/v1/runs/99", json={"name": "x"}).status_code == 404


def test_checkpoints_follow_the_name_and_an_adapter_keeps_its_own(
    client: TestClient, state: AppState, run: Run
) -> None:
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.checkpoint()
    made = training.finish()
    client.patch(f"/api/v1/runs/{run.key}", json={"name": "Second try"})
    with state.database.read() as session:
        address = checkpoints.address_of(session, run.key)
        assert address is not None
        assert address.name == "Second try"
        assert session.get_one(Adapter, made.key).name == "Chalk"
    assert "<title>Second try · Brushwork</title>" in client.get(f"/runs/{run.key}").text


def test_the_form_saves_both_and_leads_back(client: TestClient, state: AppState, run: Run) -> None:
    assert f'href="/runs/{run.key}/edit"' in client.get(f"/runs/{run.key}").text
    page = client.get(f"/runs/{run.key}/edit?back=/runs%3Fsort%3Dname").text
    sent = form_of(page, "run-edit") | {"name": "<b>Ink</b>", "notes": "One\nTwo"}
    answer = client.post(f"/runs/{run.key}/edit", data=sent, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?sort=name")
    shown = client.get(f"/runs/{run.key}").text
    assert "<b>Ink" not in shown
    assert "&lt;b&gt;Ink&lt;/b&gt;" in shown
    assert "One\nTwo</p>" in shown
    elsewhere = sent | {"back": "//example.org"}
    answer = client.post(f"/runs/{run.key}/edit", data=elsewhere, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_a_wrong_name_comes_back_with_what_was_typed(
    client: TestClient, state: AppState, run: Run
) -> None:
    sent = edit_form(client, run) | {"name": "x" * 130, "notes": "typed"}
    answer = client.post(f"/runs/{run.key}/edit", data=sent)
    assert answer.status_code == 422
    assert "This has 130 characters; use at most 120." in answer.text
    again = form_of(answer.text, "run-edit")
    assert (again["name"], again["notes"]) == ("x" * 130, "typed")
    assert stored(state, run).notes == ""


def test_two_tabs_lose_nothing(client: TestClient, state: AppState, run: Run) -> None:
    first, second = edit_form(client, run), edit_form(client, run)
    client.post(f"/runs/{run.key}/edit", data=first | {"name": "Ink"})
    client.post(f"/runs/{run.key}/edit", data=second | {"notes": "Blotchy"})
    row = stored(state, run)
    assert (row.name, row.notes) == ("Ink", "Blotchy")  # each changed another field
    answer = client.post(f"/runs/{run.key}/edit", data=first | {"notes": "Fine"})
    assert answer.status_code == 409
    assert "The notes were changed elsewhere meanwhile." in answer.text
    assert "Blotchy</p>" in answer.text
    again = form_of(answer.text, "run-edit")
    assert again["notes"] == "Fine"
    assert stored(state, run).notes == "Blotchy"
    client.post(f"/runs/{run.key}/edit", data=again)
    assert stored(state, run).notes == "Fine"


def edit_form(client: TestClient, run: Run) -> dict[str, str]:
    return form_of(client.get(f"/runs/{run.key}/edit").text, "run-edit")
