"""The page of deleted adapters, and what is left elsewhere of one that was deleted for good."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.deletion import lists
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from tests import fake_workers
from tests.app.adapters.test_pages import HTML, end_import, safetensors


def drawn_with(client: TestClient, state: AppState, adapter: Adapter) -> int:
    body = {"prompt": "a castle", "adapters": [{"id": adapter.key}], "twin": True}
    key = client.post("/api/v1/renders", json=body).json()["id"]
    fake_workers.draw(state)
    return int(key)


def delete_for_good(client: TestClient, adapter: Adapter) -> None:
    client.post(f"/adapters/{adapter.slug}/delete")
    answer = client.post(f"/storage/forever/adapters/{adapter.key}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/storage/deleted?kind=adapters",
    )


def test_deleted_adapters_are_found_and_brought_back(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    assert "/adapters/deleted" not in client.get("/adapters").text
    assert "No deleted adapters" in client.get("/adapters/deleted").text
    client.post(f"/adapters/{adapter.slug}/delete")
    assert 'href="/adapters/deleted"' in client.get("/adapters").text
    page = client.get("/adapters/deleted").text
    assert "Chalk" in page
    assert "SD 1.x, 1 version, deleted" in page
    assert f'action="/adapters/{adapter.key}/restore?' in page
    back = client.post(f"/adapters/{adapter.key}/restore")
    assert (back.status_code, str(back.url.path)) == (200, "/adapters/chalk")
    assert "No deleted adapters" in client.get("/adapters/deleted").text


def test_a_long_list_has_pages_and_a_shorter_one_its_last(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "DELETED_A_PAGE", 1)
    for name in ("One", "Two"):
        with state.database.write() as session:
            version = publish(session, NewVersion(name, "sd1", "0" * 64, 1, 1, 1.0))
        client.delete(f"/api/v1/adapters/{version.adapter_id}")
    assert "Two" in client.get("/adapters/deleted").text
    second = client.get("/adapters/deleted?page=2").text
    assert "One" in second
    assert "Page 2 of 2" in second
    assert "One" in client.get("/adapters/deleted?page=9").text


def test_deleting_for_good_asks_first_and_then_nothing_is_left(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    client.post(f"/adapters/{adapter.slug}/delete")
    page = client.get("/adapters/deleted").text
    assert f'href="/storage/forever/adapters/{adapter.key}"' in page
    asked = client.get(f"/storage/forever/adapters/{adapter.key}").text
    assert "This cannot be undone. It frees <strong>" in asked
    assert "<li>1 version</li>" in asked
    answer = client.post(f"/storage/forever/adapters/{adapter.key}")
    assert "No deleted adapters" in answer.text
    assert client.get("/adapters").status_code == 200
    assert "/adapters/deleted" not in client.get("/adapters").text


def test_a_render_that_is_not_deleted_is_kept(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    answer = client.post(f"/storage/forever/adapters/{adapter.key}", headers=HTML)
    assert answer.status_code == 409
    assert "is not deleted" in answer.text
    assert client.get(f"/adapters/{adapter.slug}").status_code == 200


def test_what_was_made_with_it_can_still_be_read(client: TestClient, state: AppState) -> None:
    fake_workers.ready_base(state)
    adapter = fake_workers.adapter(state)
    render = drawn_with(client, state, adapter)
    with state.database.write() as session:
        part = {"adapter_id": adapter.key, "slug": "chalk", "name": "Chalk", "version": 1}
        part |= {"weight": 0.8, "text_encoder_weight": None}
        made = {"tool": "merge", "method": "linear", "parts": [part]}
        new = NewVersion("Both", "sd1", "0" * 64, 5, 8, 8.0, details={"made": made})
        publish(session, new)
    page = client.get("/adapters/both").text
    facts = page[page.index(">Facts<") :].partition("</section>")[0]
    assert 'href="/adapters/chalk?v=1"' in facts
    assert "merged from Chalk<" in client.get("/adapters").text
    assert 'href="/adapters/chalk?v=1"' in client.get(f"/renders/{render}").text
    delete_for_good(client, adapter)
    for address in (
        *("/", "/adapters", "/adapters?q=chalk", "/adapters/deleted", "/adapters/both"),
        *("/runs", "/runs/1", "/train/new?from=1", "/play", f"/renders/{render}"),
        *("/play?adapter=chalk:1", "/adapters/both/compare", "/system", "/datasets/chalk"),
        *("/api/v1/runs/1", f"/api/v1/renders/{render}", "/api/v1/adapters?q=chalk"),
    ):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert 'href="/adapters/chalk' not in answer.text, address
    shown = client.get(f"/renders/{render}").text
    assert "Chalk v1" in shown
    assert "/cover" not in shown
    assert "Chalk v1 × 0.8" in client.get("/adapters/both").text
    for address in ("/adapters/chalk", "/adapters/chalk/compare", "/train/new?from=1&adapter=1"):
        assert client.get(address, headers=HTML).status_code in (200, 404), address
    again = {"render": "1", "prompt": "a castle", "adapter-0": "chalk@1", "weight-0": "1"}
    assert client.post("/play", data=again).status_code in (200, 422)
    assert client.get("/api/v1/runs/1").json()["adapter_id"] is None


def test_its_name_can_be_had_again_and_is_another_adapter(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    adapter = fake_workers.adapter(state)
    render = drawn_with(client, state, adapter)
    delete_for_good(client, adapter)
    with state.database.write() as session:
        publish(session, NewVersion("Chalk", "sd1", "0" * 64, 5, 8, 8.0))
    assert 'href="/adapters/chalk?v=1"' not in client.get(f"/renders/{render}").text
    assert client.get("/api/v1/adapters/2/renders").json() == []


def test_an_import_says_that_its_adapter_was_deleted(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    client.post("/imports", files={"file": ("mine.safetensors", safetensors())})
    key = end_import(state, JobStatus.SUCCEEDED, result={"adapter_id": adapter.key})
    delete_for_good(client, adapter)
    assert "deleted for good since" in client.get(f"/imports/{key}").text


def test_an_adapter_called_like_the_page_has_another_address(
    client: TestClient, state: AppState
) -> None:
    with state.database.write() as session:
        publish(session, NewVersion("Deleted", "sd1", "0" * 64, 5, 8, 8.0))
    assert '<h1 dir="auto">Deleted</h1>' in client.get("/adapters/deleted-2").text
