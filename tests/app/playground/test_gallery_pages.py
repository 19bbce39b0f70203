"""The pages and the API of the gallery: lists, chosen images, ZIP, comparison."""

from __future__ import annotations

import io
import re
import zipfile

import pytest
from fastapi.testclient import TestClient

from app.registry.renders import selection
from app.registry.state import AppState
from tests import fake_workers

HTML = {"accept": "text/html"}


@pytest.fixture
def drawn(client: TestClient, state: AppState) -> list[int]:
    """Three images, the second with the adapter Chalk and a twin; their ids, oldest first."""
    adapter = fake_workers.adapter(state)
    bodies = (
        {"prompt": "a fox", "seed": 1},
        {"prompt": "a boat", "seed": 1, "adapters": [{"id": adapter.key}], "twin": True},
        {"prompt": "a castle", "seed": 2},
    )
    keys = [client.post("/api/v1/renders", json=body).json()["id"] for body in bodies]
    fake_workers.draw(state)
    return keys


def tiles(text: str) -> list[int]:
    """The ids of the images that a page of the gallery shows."""
    return [int(key) for key in re.findall(r'<li class="shot stack" id="render-(\d+)"', text)]


def listed(client: TestClient, query: str = "") -> list[int]:
    return [row["id"] for row in client.get(f"/api/v1/renders{query}").json()]


def test_an_empty_gallery_leads_to_the_playground(client: TestClient) -> None:
    page = client.get("/renders").text
    assert "No images yet" in page
    assert 'href="/play"' in page
    assert "No deleted images" in client.get("/renders?show=deleted").text


def test_the_gallery_lists_searches_and_filters_as_the_api_does(
    client: TestClient, drawn: list[int]
) -> None:
    fox, boat, castle = drawn
    client.patch(f"/api/v1/renders/{fox}", json={"starred": True})
    for query, found in (
        ("", [castle, boat, fox]),
        ("?q=chalk", [boat]),
        ("?q=a+fox", [fox]),
        ("?adapter=chalk", [boat]),
        ("?adapter=nobody", []),
        ("?q=zebra", []),
    ):
        assert tiles(client.get(f"/renders{query}").text) == listed(client, query) == found
    assert tiles(client.get("/renders?starred=1").text) == listed(client, "?starred=true") == [fox]
    answer = client.get(client.get("/api/v1/renders?limit=1").links["next"]["url"])
    assert [row["id"] for row in answer.json()] == [boat]
    assert answer.headers["x-total-count"] == "3"
    assert tiles(client.get("/renders?page=99").text) == [castle, boat, fox]
    page = client.get("/renders?q=zebra").text
    assert "No image matches" in page
    assert "0 images found" in page


def test_too_long_a_search_is_refused_with_a_sentence(client: TestClient) -> None:
    for path in ("/renders", "/api/v1/renders"):
        assert client.get(path, params={"q": "x" * 201}, headers=HTML).status_code == 422
        answer = client.get(path, params={"q": "x" * 60_000}, headers=HTML)
        assert answer.status_code == 414
        assert "Send a shorter one" in answer.text


def test_chosen_images_are_deleted_and_the_page_offers_to_undo_it(
    client: TestClient, drawn: list[int]
) -> None:
    fox, boat, castle = drawn
    sent = {"id": [str(fox), str(castle)], "back": "/renders?q=a"}
    answer = client.post("/renders/delete", data=sent, follow_redirects=False)
    assert answer.headers["location"] == f"/renders?q=a&undo={fox}-{castle}"
    page = client.get(answer.headers["location"]).text
    assert tiles(page) == [boat]
    assert "2 images were deleted." in page
    assert listed(client, "?deleted=true") == [castle, fox]
    assert tiles(client.get("/renders?show=deleted").text) == [castle, fox]
    toast = page.partition('class="toast"')[2]
    undone = {"id": re.findall(r'name="id" value="(\d+)"', toast), "back": "/renders?q=a"}
    page = client.post("/renders/restore", data=undone).text
    assert tiles(page) == [castle, boat, fox]
    assert "were deleted" not in page


def test_the_page_of_an_image_deletes_it_with_undo(client: TestClient, drawn: list[int]) -> None:
    page = client.get(f"/renders/{drawn[0]}").text
    for_good = f'href="/storage/forever/renders/{drawn[0]}"'
    assert 'action="/renders/delete"' in page
    assert 'action="/renders/star"' in page
    assert for_good not in page
    after = client.post("/renders/delete", data={"id": str(drawn[0])}).text
    assert "The image was deleted." in after
    assert '<p class="above-5"><a href="/renders?show=deleted">' in after  # no small print
    assert tiles(after) == drawn[:0:-1]
    assert for_good in client.get(f"/renders/{drawn[0]}").text


def test_chosen_images_are_starred_and_their_stars_removed(
    client: TestClient, drawn: list[int]
) -> None:
    fox, boat = map(str, drawn[:2])
    client.post("/renders/star", data={"id": [fox, boat], "starred": "1"})
    assert listed(client, "?starred=true") == [int(boat), int(fox)]
    alone = {"id": fox, "starred": "0", "one": "1"}
    star = client.post("/renders/star", data=alone, headers={"hx-request": "true"}).text
    assert star.lstrip().startswith("<form")
    assert 'aria-pressed="false"' in star
    assert listed(client, "?starred=true") == [int(boat)]


def test_chosen_images_come_as_a_zip_archive(client: TestClient, drawn: list[int]) -> None:
    for path in ("/renders/zip", "/api/v1/renders/zip"):
        answer = client.get(path, params={"id": drawn})
        assert answer.headers["content-type"] == "application/zip"
        assert 'filename="brushwork-images.zip"' in answer.headers["content-disposition"]
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [f"brushwork-{key}.png" for key in drawn]


def test_an_action_impossible_for_the_chosen_images_gives_the_reason(
    client: TestClient, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fox, _, castle = map(str, drawn)
    waiting = client.post("/api/v1/renders", json={"prompt": "it waits"}).json()["id"]
    client.delete(f"/api/v1/renders/{castle}")
    for path, ids, status, words in (
        ("/renders/delete", [fox, "999"], 404, "No image has the id 999"),
        ("/renders/delete", ["x"], 422, "no valid number"),
        ("/renders/delete", [str(key) for key in range(1, 301)], 422, "at most 200 images"),
        ("/renders/delete", [str(key) for key in range(1, 10_001)], 400, "Too many fields"),
        ("/renders/delete", [str(waiting)], 409, "still being generated"),
        ("/renders/star", [fox, "999"], 404, "No image has the id 999"),
    ):
        answer = client.post(path, data={"id": ids}, headers=HTML)
        assert (answer.status_code, words in answer.text) == (status, True), (path, words)
    for ids, status, words in (
        ([castle], 409, f"Deleted: image {castle}"),
        ([str(waiting)], 409, f"Not generated: image {waiting}"),
        (["999"], 404, "No image has the id 999"),
        ([str(key) for key in range(1, 301)], 422, "at most 200 images"),
    ):
        answer = client.get("/renders/zip", params={"id": ids}, headers=HTML)
        assert (answer.status_code, words in answer.text) == (status, True), words
    monkeypatch.setattr(selection, "MAX_ZIP_BYTES", 10)
    assert client.get("/renders/zip", params={"id": fox}, headers=HTML).status_code == 413
    assert tiles(client.get("/renders").text) == drawn[1::-1]


def test_adapters_of_one_name_are_told_apart(
    client: TestClient, state: AppState, drawn: list[int]
) -> None:
    other = fake_workers.adapter(state)
    body = {"prompt": "an owl", "adapters": [{"id": other.key}]}
    client.post("/api/v1/renders", json=body)
    client.delete("/api/v1/adapters/1")
    page = client.get("/renders").text
    assert '<option value="chalk">Chalk (chalk, deleted)</option>' in page
    assert f'<option value="{other.slug}">Chalk ({other.slug})</option>' in page


def test_nothing_chosen_leads_back_with_a_sentence(client: TestClient, drawn: list[int]) -> None:
    for path in ("delete", "restore", "star"):
        page = client.post(f"/renders/{path}", data={"back": "/renders?q=fox"}).text
        assert "Choose an image first." in page
        assert tiles(page) == drawn[:1]
    assert "Choose an image first." in client.get("/renders/zip").text
    assert "Choose two images" in client.get(f"/renders/compare-chosen?id={drawn[0]}").text


def test_two_images_are_compared_with_what_differs(client: TestClient, drawn: list[int]) -> None:
    fox, boat, castle = drawn
    page = client.get(f"/renders/compare-chosen?id={castle}&id={fox}").text
    assert f"<title>Compare images {fox} and {castle}" in page
    assert 'class="comparison-label">Seed 1<' in page
    for label, a, b in (("Prompt", "a fox", "a castle"), ("Seed", "1", "2")):
        assert f'<th scope="row">{label}</th><td dir="auto">{a}</td><td dir="auto">{b}</td>' in page
    labels = client.get(f"/renders/compare?a={boat}&b={fox}").text
    assert 'class="comparison-label">Chalk 1.00<' in labels
    assert 'class="comparison-label">No adapters<' in labels
    choose = client.get(f"/renders/compare?a={fox}").text
    assert f'href="/renders/compare?a={fox}&amp;b={boat}"' in choose
    assert f"b={fox}" not in choose


def test_a_comparison_with_what_is_not_there_says_so(client: TestClient, drawn: list[int]) -> None:
    fox = drawn[0]
    waiting = client.post("/api/v1/renders", json={"prompt": "it waits"}).json()["id"]
    client.delete(f"/api/v1/renders/{drawn[2]}")
    for query, status, words in (
        ("", 200, "Choose two images"),
        (f"?a={fox}&b={fox}", 200, "Both are the same image"),
        (f"?a={fox}&b=999", 404, "Image 999 does not exist"),
        ("?b=999", 404, "Image 999 does not exist"),
        (f"?a={waiting}", 404, f"Image {waiting} has not been generated"),
        (f"?a={waiting}&b={fox}", 200, "One of these has no image"),
        (f"?a={fox}&b={drawn[2]}", 200, f"Image {drawn[2]} was deleted"),
        ("?a=x&b=1", 422, "a"),
    ):
        answer = client.get(f"/renders/compare{query}", headers=HTML)
        assert (answer.status_code, words in answer.text) == (status, True), query
