"""HEAD is answered wherever GET is, with the same headers and without a body."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from app.registry.state import AppState
from tests.images import make_png

OF_THE_MOMENT = {"date", "content-length"}  # a page may say "2 min ago"
NAMES = {"slug": "ink", "version": "1", "alias": "best", "name": "fox", "size": "small"}


def get_paths(app: FastAPI) -> list[str]:
    """An address for every route that answers GET."""
    contexts = [one for one in iter_route_contexts(app.routes) if "GET" in (one.methods or ())]
    return [
        re.sub(r"\{(\w+)\}", lambda found: NAMES.get(found[1], "1"), context.path or "")
        for context in contexts
    ]


def test_head_is_answered_like_get_on_every_route(client: TestClient, app: FastAPI) -> None:
    client.post("/api/v1/datasets", json={"name": "Ink"})
    client.post("/api/v1/datasets/1/images", files={"files": ("a.png", make_png(), "image/png")})
    paths = [*get_paths(app), "/static/css/tokens.css", "/nothing"]
    assert len(paths) > 60
    for path in paths:
        client.cookies.clear()  # a notice that another page left is told once
        full = client.get(path, follow_redirects=False)
        client.cookies.clear()
        head = client.head(path, follow_redirects=False)
        assert head.status_code == full.status_code, path
        assert head.content == b""
        kept = {name: value for name, value in full.headers.items() if name not in OF_THE_MOMENT}
        assert kept.items() <= dict(head.headers).items(), path
    assert client.head("/datasets").status_code == client.head("/healthz").status_code == 200


def test_the_head_of_an_image_has_its_length_and_reads_no_image(
    client: TestClient, state: AppState
) -> None:
    blob = state.store.put_bytes(make_png())
    head = client.head(f"/media/{blob.sha256}")
    assert head.headers["content-length"] == str(blob.size)
    assert head.headers["content-type"] == "image/png"


def test_another_method_is_refused_with_those_that_work(client: TestClient) -> None:
    refused = client.put("/healthz")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.json()["type"] == "urn:brushwork:problem:method_not_allowed"
    assert client.head("/theme").status_code == 405
