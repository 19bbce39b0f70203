"""A version is put into use where it is shown, with a toast that undoes it."""

from __future__ import annotations

import html
import re

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from app.registry.adapters import service
from app.registry.adapters.service import use_version
from app.registry.errors import Conflict, NotFound
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.web.templates import NOTICE_COOKIE
from tests import fake_workers
from tests.fake_workers import FakeTraining

HTML = {"accept": "text/html"}


@pytest.fixture
def adapter(client: TestClient, state: AppState) -> Adapter:
    """Chalk with version 1 of step 20 and version 2 of step 40, which is in use."""
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = FakeTraining(state)
    for step in (20, 40):
        training.train(20)
        training.checkpoint()
        training.sample(step)
        client.post(f"/api/v1/runs/1/checkpoints/{step}/use")
    training.cancel()
    with state.database.read() as session:
        return service.adapter_by_slug(session, "chalk")


def latest(client: TestClient, adapter: Adapter) -> int:
    address = f"/api/v1/adapters/{adapter.key}/versions/latest"
    return int(client.get(address).json()["version"])


def cover(client: TestClient, adapter: Adapter) -> str:
    return str(client.get(f"/api/v1/adapters/{adapter.key}").json()["cover_url"])


def undo_of(page: str) -> str:
    """The address that the toast with an Undo posts to."""
    found = re.search(r'<div class="toast">.*?<form method="post" action="([^"]+)">', page, re.S)
    assert found is not None
    return html.unescape(found[1])


def test_one_post_puts_a_version_into_use_and_undo_puts_the_other_back(
    client: TestClient, adapter: Adapter
) -> None:
    before = cover(client, adapter)
    page = client.post("/adapters/chalk/versions/1/use", headers=HTML).text
    assert "Version 1 of “Chalk” is in use now." in html.unescape(page)
    assert latest(client, adapter) == 1
    assert cover(client, adapter) != before  # it was a sample of version 2
    page = client.post(undo_of(page), headers=HTML).text
    assert "Version 2 of “Chalk” is in use now." in html.unescape(page)
    assert (latest(client, adapter), cover(client, adapter)) == (2, before)
    client.post("/adapters/chalk/versions/2/use", headers=HTML, follow_redirects=False)
    assert 'class="toast"' in client.get("/adapters/chalk").text
    assert ">Undo<" not in client.get("/adapters/chalk").text  # nothing changed


def test_the_alias_latest_of_the_api_takes_the_cover_along(
    client: TestClient, adapter: Adapter
) -> None:
    before = cover(client, adapter)
    address = f"/api/v1/adapters/{adapter.key}/aliases/latest"
    assert client.put(address, json={"version": 1}).json() == {"alias": "latest", "version": 1}
    assert cover(client, adapter) != before


def test_the_cover_of_a_deleted_version_goes_and_comes_with_it(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    before = cover(client, adapter)
    with state.database.write() as session:  # no download of version 2 is being written
        session.connection().execute(sa.delete(IoJob))
    page = client.post(f"/adapters/{adapter.key}/versions/2/delete", headers=HTML).text
    assert "<p>Version 2 of “Chalk” was deleted.</p>" in html.unescape(page)
    first = cover(client, adapter)
    assert first != before
    client.post(f"/api/v1/adapters/{adapter.key}/versions/2/restore")
    assert cover(client, adapter) == before
    client.post("/adapters/chalk/versions/1/use")
    assert cover(client, adapter) == first


def test_deleted_checkpoints_are_named_by_their_step(client: TestClient, adapter: Adapter) -> None:
    page = client.post("/runs/1/checkpoints/20/delete?back=/runs/1", headers=HTML).text
    assert "<p>Step 20 of “Chalk” was deleted.</p>" in html.unescape(page)
    page = client.post(undo_of(page), headers=HTML).text
    assert "<p>Step 20 of “Chalk” was restored.</p>" in html.unescape(page)


def test_a_chosen_cover_stays(client: TestClient, adapter: Adapter, state: AppState) -> None:
    with state.database.write() as session:
        session.get_one(Adapter, adapter.key).cover_sha256 = "c" * 64
    client.post("/adapters/chalk/versions/1/use")
    assert cover(client, adapter).endswith("c" * 64)


def test_every_page_that_shows_a_version_offers_it(client: TestClient, adapter: Adapter) -> None:
    button = 'action="/adapters/chalk/versions/{}/use?back='
    page = client.get("/adapters/chalk").text
    assert ">in use</span>" in page
    assert ">latest<" not in page
    assert page.count(button.format(1)) == 1  # beside the version in the list
    assert button.format(2) not in page
    page = client.get("/adapters/chalk?v=1").text
    assert page.count(button.format(1)) == 2  # and in its head
    page = client.get("/adapters/chalk/compare?a=1&b=2").text
    assert button.format(1) in page
    assert button.format(2) not in page
    run = client.get("/runs/1").text
    assert "data-viewer-use" in run
    page = client.post("/runs/1/checkpoints/20/use", headers=HTML).text
    assert undo_of(page).startswith("/adapters/chalk/versions/2/use?back=%2Fruns%2F1")


def test_a_form_goes_back_to_addresses_of_this_server_only(
    client: TestClient, adapter: Adapter
) -> None:
    address = "/adapters/chalk/versions/1/use?back=https://example.com/"
    answer = client.post(address, follow_redirects=False)
    assert answer.headers["location"] == "/"
    client.cookies.set(NOTICE_COOKIE, "Done.|https%3A//example.com/")
    assert "example.com" not in client.get("/adapters").text


def test_checkpoints_and_missing_versions_are_refused(
    client: TestClient, adapter: Adapter, state: AppState
) -> None:
    with state.database.write() as session:
        with pytest.raises(NotFound, match="has no version 9"):
            use_version(session, adapter.key, 9)
        checkpoints = service.adapter_by_slug(session, "chalk-run-1")
        with pytest.raises(Conflict, match="checkpoints of run 1"):
            use_version(session, checkpoints.key, 20)
