"""Methods: each address refuses those that it does not have, and names those that it has."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from app.registry.slugs import RESERVED
from app.web.access.needs import make_rules
from app.web.methods import PathMethods
from tests.costs import wide_but

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PARAMETER = re.compile(r"\{[^}]*\}")


def methods_of_paths(app: FastAPI) -> dict[str, set[str]]:
    """The methods of all routes, by their path with 1 for each parameter."""
    found: dict[str, set[str]] = defaultdict(set)
    for context in iter_route_contexts(list(app.routes)):
        if context.methods is not None:
            found[PARAMETER.sub("1", str(context.path))] |= set(context.methods)
    return found


@pytest.mark.parametrize("most", wide_but([1, len(METHODS)], 1))
def test_every_address_refuses_the_methods_that_it_does_not_have(
    most: int, app: FastAPI, client: TestClient
) -> None:
    """One in turn for each address; all of them are `wide`."""
    paths = methods_of_paths(app)
    assert len(paths) > 300
    wrong = []
    for place, (path, methods) in enumerate(paths.items()):
        allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        lacking = [method for method in METHODS if method not in methods]
        first = place % len(lacking)
        for method in (lacking[first:] + lacking[:first])[:most]:
            answer = client.request(method, path, headers={"accept": "application/json"})
            found = (answer.status_code, answer.headers.get("allow"))
            if found != (405, allowed):
                wrong.append((method, path, *found))
    assert wrong == []


def test_no_slug_is_a_word_that_stands_in_its_place_in_another_address(app: FastAPI) -> None:
    paths = [str(context.path) for context in iter_route_contexts(list(app.routes))]
    with_slugs = r"(?:/api/v1)?/(?:adapters|base-models|caption-models|datasets|recipes)/([a-z-]+)"
    words = {found[1] for path in paths if (found := re.fullmatch(with_slugs, path))}
    assert "covers" in words
    assert words <= RESERVED


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/datasets/1", "DELETE, GET, HEAD, PATCH"),
        ("OPTIONS", "/api/v1/datasets", "GET, HEAD, POST"),
        ("PATCH", "/api/v1/storage/deleted", "GET, HEAD"),
        ("PATCH", "/api/v1/grids/estimate", "POST"),
        ("HEAD", "/api/v1/grids/estimate", "POST"),
        ("POST", "/datasets/deleted", "GET, HEAD"),
        ("POST", "/static/css/base.css", "GET, HEAD"),
    ],
)
def test_routes_that_share_a_path_are_asked_together(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path, json={} if method == "PATCH" else None)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_people_get_a_page(client: TestClient) -> None:
    answer = client.put("/datasets", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert "This address does not support that method." in answer.text


def test_methods_that_an_address_has_reach_its_route(app: FastAPI, client: TestClient) -> None:
    methods = PathMethods(make_rules(app.routes))
    for path, expected in methods_of_paths(app).items():
        assert methods.of(path) == expected - {"HEAD"}, path
    assert client.get("/datasets/", follow_redirects=False).status_code == 307
    assert client.put("/nothing/here").status_code == 404


def test_a_dataset_that_is_called_restore_has_a_page_and_a_form(client: TestClient) -> None:
    client.post("/datasets", data={"name": "Restore"})
    assert client.get("/datasets/restore").status_code == 200
    client.post("/datasets/restore", data={"name": "Restored", "trigger_word": ""})
    assert client.get("/api/v1/datasets/1").json()["name"] == "Restored"
