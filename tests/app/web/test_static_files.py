"""Static files and compression: what is cached for a year, what is sent compressed, what never."""

from __future__ import annotations

import re
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.paths import STATIC
from app.registry.state import AppState
from app.web.static_files import static_url
from tests import fake_workers

PLAIN = {"accept-encoding": "identity"}


def test_the_url_contains_the_content_and_is_cached_for_a_year(client: TestClient) -> None:
    address = static_url("css/tokens.css")
    assert re.fullmatch(r"/static/css/tokens\.css\?v=[0-9a-f]{12}", address)
    answer = client.get(address)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    for other in ("/static/css/tokens.css", "/static/css/tokens.css?v=0123456789ab"):
        assert client.get(other).headers["cache-control"] == "no-cache"


def test_files_are_found_before_any_router_is_asked(client: TestClient) -> None:
    """A page needs two dozen of them, and hundreds of routes are tried in order."""
    paths = [getattr(route, "path", None) for route in cast(FastAPI, client.app).routes]
    assert paths.index("/static") == paths.index("/openapi.json") + 1 == 1
    assert len(paths) > 2


@pytest.mark.parametrize("path", ["css/tokens.css", "js/upload.js", "favicon.svg"])
def test_text_files_are_the_same_with_and_without_compression(
    client: TestClient, path: str
) -> None:
    plain, packed = client.get(static_url(path), headers=PLAIN), client.get(static_url(path))
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == (STATIC / path).read_bytes()
    for name in ("content-type", "etag", "vary", "cache-control"):
        assert packed.headers[name] == plain.headers[name]
    assert packed.headers["vary"] == "Accept-Encoding"


def test_an_unchanged_file_is_not_sent_again_in_either_encoding(client: TestClient) -> None:
    for encoding in ("gzip", "identity"):
        headers = {"accept-encoding": encoding}
        etag = client.get("/static/js/keys.js", headers=headers).headers["etag"]
        assert etag.startswith('W/"')
        again = client.get("/static/js/keys.js", headers=headers | {"if-none-match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["vary"]) == (etag, "Accept-Encoding")


def test_a_range_of_a_file_is_a_range_of_its_plain_bytes(client: TestClient) -> None:
    answer = client.get("/static/js/keys.js", headers={"range": "bytes=10-19"})
    assert answer.status_code == 206
    assert "content-encoding" not in answer.headers
    assert answer.content == (STATIC / "js/keys.js").read_bytes()[10:20]


def test_a_file_that_is_not_there_is_a_404(client: TestClient) -> None:
    for address in ("/static/nowhere.css", "/static/css", "/static/../app/__init__.py"):
        assert client.get(address).status_code == 404


@pytest.mark.parametrize("address", ["/", "/openapi.json", "/datasets"])
def test_pages_and_json_are_compressed(client: TestClient, address: str) -> None:
    packed = client.get(address, headers={"accept": "text/html"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert "content-security-policy" in packed.headers
    plain = client.get(address, headers=PLAIN | {"accept": "text/html"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"


def test_small_answers_stay_plain(client: TestClient) -> None:
    for address in ("/healthz", "/running"):
        assert "content-encoding" not in client.get(address).headers


def test_images_and_downloads_stay_plain_and_keep_their_length(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    sha256 = client.get("/api/v1/runs/1/samples").json()[0]["url"]
    for address in (sha256, f"/api/v1/adapters/{adapter.key}/download?format=kohya&dtype=fp16"):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "content-encoding" not in answer.headers
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert re.fullmatch(r'"[0-9a-f]{64}"', answer.headers["etag"])


def test_nothing_that_is_packed_already_is_compressed_again(client: TestClient) -> None:
    answer = client.get("/example/chalkboard/fox.webp")
    assert answer.headers["content-type"] == "image/webp"
    assert "content-encoding" not in answer.headers
