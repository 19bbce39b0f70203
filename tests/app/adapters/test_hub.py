"""Orders to the Hub for adapters, through the API and the pages."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.service import order_import
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from tests.images import make_png

FRAGMENT = {"HX-Request": "true"}


@pytest.fixture
def adapter(state: AppState) -> Adapter:
    """An adapter with a cover."""
    cover = state.store.put_bytes(make_png()).sha256
    new = NewVersion("Ink", "sd1", "a" * 64, 10, 4, 2.0, cover_sha256=cover)
    with state.database.write() as session:
        version = publish(session, new)
        return session.get_one(Adapter, version.adapter_id)


def newest(state: AppState) -> IoJob:
    with state.database.read() as session:
        return session.exec(select(IoJob).order_by(IoJob.id.desc())).first()  # type: ignore[union-attr, return-value]


def end(state: AppState, job: IoJob, status: JobStatus, **values: object) -> None:
    with state.database.write() as session:
        row = session.get_one(IoJob, job.key)
        row.status = status
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)


def test_a_publication_is_ordered_followed_and_found_again(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    address = f"/api/v1/adapters/{adapter.key}/publications"
    answer = client.post(address, json={"repo": "ink", "base_model": "acme/tiny"})
    assert answer.status_code == 202
    row = answer.json()
    assert (row["status"], row["repo"], row["private"], row["version"]) == (
        "queued",
        "ink",
        True,
        1,
    )
    job = newest(state)
    assert job.args["base_model"] == "acme/tiny"
    twice = client.post(address, json={"repo": "ink"})
    assert (twice.status_code, "already" in twice.json()["detail"]) == (409, True)
    page = client.get(f"/adapters/{adapter.slug}/hub", headers=FRAGMENT).text
    assert "requested as private" in page
    url = "https://hub.example/ada/ink"
    end(state, job, JobStatus.SUCCEEDED, result={"repo": "ada/ink", "url": url, "private": False})
    (row,) = client.get(address).json()
    assert (row["status"], row["repo"], row["url"]) == ("succeeded", "ada/ink", url)
    assert row["private"] is False  # as the Hub says
    page = client.get(f"/adapters/{adapter.slug}/hub", headers=FRAGMENT).text
    assert "version 1, public" in page
    assert "checked" not in page.partition('id="hub-private"')[2].partition(">")[0]
    assert f'href="{url}"' in page
    assert 'value="ada/ink"' in page
    client.post(address, json={"repo": "ink"})
    assert newest(state).args["update"] is True


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"repo": "a b"}, "name or owner/name"),
        ({"repo": "a/b/c"}, "name or owner/name"),
        ({"repo": "../x"}, "name or owner/name"),
        ({"repo": "ink", "base_model": "/models/sd"}, "name on the Hub"),
        ({"repo": "ink", "pictures": ["f" * 64]}, "generated with this adapter"),
        ({"repo": "ink", "other": 1}, "other"),
    ],
)
def test_a_publication_that_cannot_be_is_refused_with_the_reason(
    client: TestClient, adapter: Adapter, body: dict[str, object], reason: str
) -> None:
    answer = client.post(f"/api/v1/adapters/{adapter.key}/publications", json=body)
    assert answer.status_code == 422
    assert reason in answer.text


def test_the_page_of_an_adapter_has_a_form_that_publishes(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    assert f"/adapters/{adapter.slug}/hub" in client.get(f"/adapters/{adapter.slug}").text
    address = f"/adapters/{adapter.slug}/hub?v=1"
    page = client.get(address).text  # a page of its own without scripts
    assert "<h1" in page
    assert 'value="ink"' in page
    assert "needs an access token" in page
    refused = client.post(address, data={"repo": "a b", "private": "true"}, headers=FRAGMENT)
    assert refused.status_code == 422
    assert 'value="a b"' in refused.text
    sent = client.post(address, data={"repo": "ink"}, headers=FRAGMENT)
    assert "Waiting" in sent.text
    assert 'hx-trigger="poll"' in sent.text
    assert (newest(state).args["private"], newest(state).args["pictures"]) == (False, [])
    end(state, newest(state), JobStatus.FAILED, error="The token may not do this.")
    page = client.get(address, headers=FRAGMENT).text
    assert "The token may not do this." in page
    assert "hx-trigger" not in page.partition("<form")[0].rpartition("every")[0]
    assert client.post(address, data={"repo": "ink"}).url.path == f"/adapters/{adapter.slug}/hub"


def test_an_import_is_ordered_and_followed_to_its_check(
    client: TestClient, state: AppState
) -> None:
    for source in ("", "ink", "/tmp/x.safetensors", "a/b/x.pt"):
        assert client.post("/api/v1/hub-imports", json={"source": source}).status_code == 422
    answer = client.post("/api/v1/hub-imports", json={"source": "acme/ink@v1/x.safetensors"})
    assert answer.status_code == 202
    row = answer.json()
    assert (row["status"], row["source"]) == ("queued", "acme/ink@v1/x.safetensors")
    job = newest(state)
    assert job.args == {"repo": "acme/ink", "revision": "v1", "file": "x.safetensors"}
    page = client.get(f"/hub-imports/{job.key}", headers=FRAGMENT).text
    assert "is being downloaded" in page
    end(state, job, JobStatus.FAILED, error="There is no such thing.")
    assert client.get(f"/api/v1/hub-imports/{job.key}").json()["error"] == "There is no such thing."
    assert "There is no such thing." in client.get(f"/hub-imports/{job.key}").text
    assert client.get("/api/v1/hub-imports/999").status_code == 404


def test_an_import_is_asked_for_on_the_page_of_adapters(
    client: TestClient, state: AppState
) -> None:
    assert 'action="/hub-imports"' in client.get("/adapters").text
    refused = client.post("/hub-imports", data={"source": "ink"}, headers=FRAGMENT)
    assert refused.status_code == 422
    assert "owner/name" in refused.text
    page = client.post("/hub-imports", data={"source": "acme/ink"})
    assert page.url.path == f"/hub-imports/{newest(state).key}"
    assert "acme/ink" in page.text


def test_a_publication_is_canceled_over_rest_and_on_the_page(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    address = f"/api/v1/adapters/{adapter.key}/publications"
    waiting = client.post(address, json={"repo": "ink"}).json()["id"]
    answer = client.post(f"{address}/{waiting}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "canceled")
    assert client.post(f"{address}/{waiting}/cancel").status_code == 202  # twice is no mistake
    assert client.post(f"{address}/999/cancel").status_code == 404

    typed = {"repo": "ada/ink-2", "base_model": "acme/tiny"}
    client.post(address, json=typed)  # nothing stands in its way
    job = newest(state)
    end(state, job, JobStatus.RUNNING)
    place = f"/adapters/{adapter.slug}/hub"
    page = client.get(f"{place}?v=1", headers=FRAGMENT).text
    assert f'action="{place}/{job.key}/cancel?v=1"' in page
    page = client.post(f"{place}/{job.key}/cancel?v=1", headers=FRAGMENT).text
    assert "Canceling…" in page
    assert 'hx-trigger="poll"' in page
    assert newest(state).cancel_requested
    end(state, job, JobStatus.CANCELED)
    page = client.get(place).text
    assert page.count("Canceled") == 2
    assert "Canceling" not in page
    for text in typed.values():  # it can be published anew
        assert f'value="{text}"' in page
    end(state, job, JobStatus.SUCCEEDED)
    assert client.post(f"{address}/{job.key}/cancel").status_code == 409
    too_late = client.post(f"{place}/{job.key}/cancel")
    assert (too_late.url.path, "Finished" in too_late.text) == (place, True)


def test_an_import_is_canceled_while_it_is_fetched_and_while_it_is_checked(
    client: TestClient, state: AppState
) -> None:
    client.post("/hub-imports", data={"source": "acme/ink"})
    job = newest(state)
    address = f"/hub-imports/{job.key}"
    assert f'action="{address}/cancel"' in client.get(address).text
    end(state, job, JobStatus.RUNNING)
    page = client.post(f"{address}/cancel", headers=FRAGMENT).text
    assert "Canceling…" in page
    end(state, job, JobStatus.CANCELED)
    assert "Canceled. <strong>acme/ink</strong>" in client.get(address).text

    fetched = client.post("/api/v1/hub-imports", json={"source": "acme/ink"}).json()["id"]
    with state.database.write() as session:
        ordered = order_import(session, sha256="a" * 64, filename="ink.safetensors", sidecars=[])
        import_id = ordered.key
    with state.database.read() as session:
        job = session.get_one(IoJob, fetched)
    end(state, job, JobStatus.SUCCEEDED, result={"import_id": import_id})
    page = client.get(f"/hub-imports/{fetched}", headers=FRAGMENT).text
    assert "is being checked" in page
    assert f'hx-get="/hub-imports/{fetched}"' in page
    answer = client.post(f"/api/v1/hub-imports/{fetched}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "canceled")
    assert (
        "Canceled. <strong>acme/ink</strong>" in client.post(f"/hub-imports/{fetched}/cancel").text
    )
    shown = client.get(f"/imports/{import_id}", headers=FRAGMENT).text
    assert "Canceled. <strong>ink.safetensors</strong> was not imported." in shown
    with state.database.read() as session:
        job = session.get_one(IoJob, import_id)
    end(state, job, JobStatus.SUCCEEDED, result={"adapter_id": 1})
    assert client.post(f"/api/v1/hub-imports/{fetched}/cancel").status_code == 409
    assert client.post("/api/v1/hub-imports/999/cancel").status_code == 404
