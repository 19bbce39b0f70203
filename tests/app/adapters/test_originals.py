"""The file that a version was imported from is given as it came."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter

SENT = b"\x02\0\0\0\0\0\0\0{}as it came"


@pytest.fixture
def adapter(state: AppState) -> Adapter:
    """Version 1 was imported and converted, version 2 imported as it is, version 3 made here."""
    source = state.store.put_bytes(SENT).sha256
    kept = {"imported": '../a"b.safetensors', "source_sha256": source}
    with state.database.write() as session:
        key = None
        for number, details in enumerate(
            ({**kept, "converted": True}, {**kept, "converted": False}, {})
        ):
            new = NewVersion("Ink", "sd1", f"{number:064x}", 10, 4, 2.0, details=details)
            key = publish(session, new, adapter_id=key).adapter_id
        return session.get_one(Adapter, key)


def test_the_original_is_the_sent_file_under_a_safe_name(
    client: TestClient, adapter: Adapter
) -> None:
    place = f"/api/v1/adapters/{adapter.key}/original?version=1"
    answer = client.get(place)
    assert (answer.status_code, answer.content) == (200, SENT)
    assert 'filename="ink-v1-original.safetensors"' in answer.headers["content-disposition"]
    etag = answer.headers["etag"]
    assert client.get(place, headers={"if-none-match": etag}).status_code == 304
    assert client.get(place.replace("=1", "=2")).content == SENT


def test_what_has_no_original_is_told_so(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    place = f"/api/v1/adapters/{adapter.key}/original"
    answer = client.get(place)  # the one in use was made here
    assert answer.status_code == 404
    assert "Version 3 of “Ink” has no original file" in answer.json()["detail"]
    assert client.get(f"{place}?version=9").status_code == 404
    assert client.get("/api/v1/adapters/99/original").status_code == 404
    state.store.delete(client.get(f"{place}?version=1").headers["etag"].strip('"'))
    answer = client.get(f"{place}?version=1")
    assert answer.status_code == 404
    assert "no longer in the store" in answer.json()["detail"]


def test_the_page_offers_it_where_the_file_was_converted(
    client: TestClient, adapter: Adapter
) -> None:
    link = f'href="/api/v1/adapters/{adapter.key}/original?version='
    assert f'{link}1"' in client.get(f"/adapters/{adapter.slug}?v=1").text
    for number in (2, 3):
        assert link not in client.get(f"/adapters/{adapter.slug}?v={number}").text
