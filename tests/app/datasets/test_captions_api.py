"""Captions of an image, their history, its focus and setting it aside, through the REST API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Png = Callable[..., bytes]
JSON = {"content-type": "application/json"}


@pytest.fixture
def image(client: TestClient, png: Png) -> str:
    """The address of an image with the caption “a fox”, from fox.txt."""
    key = client.post("/api/v1/datasets", json={"name": "Ink"}).json()["id"]
    files = [("files", ("fox.png", png(1))), ("files", ("fox.txt", b"a fox"))]
    answer = client.post(f"/api/v1/datasets/{key}/images", files=files)
    return f"/api/v1/images/{answer.json()['accepted'][0]['id']}"


def test_an_image_gets_a_second_caption_and_every_change_is_kept(
    client: TestClient, image: str
) -> None:
    client.patch(image, json={"caption": "a red fox"})
    body = {"caption": "fox, red", "share": 3}
    found = client.put(f"{image}/captions/tags", json=body).json()
    assert found["token_limit"] == 22
    assert [(one["kind"], one["used"], one["tokens"]) for one in found["captions"]] == [
        ("long", 0.25, 3),
        ("tags", 0.75, 3),
    ]
    assert [
        (one["kind"], one["version"], one["source"], one["source_name"], one["current"])
        for one in found["history"]
    ] == [
        ("tags", 1, "hand", None, True),
        ("long", 2, "hand", None, True),
        ("long", 1, "import", "fox.txt", False),
    ]
    restored = client.post(f"{image}/captions/long/1/restore").json()
    assert restored["captions"][0]["caption"] == "a fox"
    assert restored["history"][0]["source"] == "restore"
    left = client.delete(f"{image}/captions/tags").json()
    assert [one["kind"] for one in left["captions"]] == ["long"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/captions/tags", {"caption": "a", "share": 0}, 422),
        ("PUT", "/captions/tags", {"caption": "a", "share": -3}, 422),
        ("PUT", "/captions/tags", {"caption": "a", "share": 1e9}, 422),
        ("PUT", "/captions/tags", {"caption": "a", "share": "NaN"}, 422),
        ("PUT", "/captions/tags", {"caption": "x" * 1_000_000}, 422),
        ("PUT", "/captions/tags", {"share": 2}, 404),
        ("PUT", "/captions/tags", {}, 422),
        ("PUT", "/captions/novel", {"caption": "a"}, 404),
        ("PUT", "/captions/long", {"caption": "mine", "caption_version": 9}, 409),
        ("DELETE", "/captions/long", None, 409),
        ("DELETE", "/captions/tags", None, 404),
        ("POST", "/captions/long/9/restore", None, 404),
        ("POST", f"/captions/long/{10**30}/restore", None, 404),
    ],
)
def test_what_cannot_be_done_is_a_problem_and_changes_nothing(
    client: TestClient, image: str, method: str, path: str, body: Any, status: int
) -> None:
    before = client.get(f"{image}/captions").json()
    answer = client.request(method, image + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert client.get(f"{image}/captions").json() == before


def test_a_focus_is_set_and_taken_away_and_an_image_set_aside(
    client: TestClient, image: str
) -> None:
    changed = client.patch(image, json={"focus": [0.25, 1], "set_aside": True}).json()
    assert (changed["focus"], changed["set_aside"]) == ([0.25, 1.0], True)
    assert client.patch(image, json={"focus": None}).json()["focus"] is None
    assert client.patch(image, json={"caption_kind": "tags"}).json()["caption_kind"] == "tags"
    assert client.patch(image, json={"caption_version": 2}).status_code == 422


def test_the_facts_of_an_image_say_how_it_is_cropped(client: TestClient, image: str) -> None:
    facts = client.get(f"{image}/facts").json()
    crop = facts["crop"]
    assert (facts["nearest"], facts["run_ids"]) == (None, [])
    assert crop["kept"] == pytest.approx(crop["width"] * crop["height"] / (80 * 64))
    assert crop["base_model"] == "starter"


@pytest.mark.parametrize("focus", ["[NaN, 0]", "[0, Infinity]", "[1.5, 0]", "[-1, 0]", "[0]", "0"])
def test_a_focus_outside_of_the_image_is_refused(
    client: TestClient, image: str, focus: str
) -> None:
    answer = client.patch(image, content=f'{{"focus": {focus}}}', headers=JSON)
    assert answer.status_code == 422, answer.text
    assert client.get(image).json()["focus"] is None
