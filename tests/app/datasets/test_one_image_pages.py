"""The page of one image, as plain forms and as the requests of our scripts."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from app.registry.datasets import service
from app.registry.state import AppState
from app.registry.tables.datasets import Image
from tests import fake_workers

HTML = {"accept": "text/html"}
JSON = {"accept": "application/json"}
PART = {"hx-request": "true"}
Png = Callable[..., bytes]


@pytest.fixture
def image(client: TestClient, png: Png) -> str:
    """The address of the first of three images, 80 × 64 pixels; the last has no caption."""
    files = [
        ("files", (f"{name}.png", png(number), "image/png"))
        for number, name in enumerate(("one", "two", "three"), start=1)
    ]
    files += [("files", ("one.txt", b"a boat, chalk, sea", "text/plain"))]
    files += [("files", ("two.txt", b"two boats, chalk", "text/plain"))]
    client.post("/datasets", data={"name": "Boats"}, files=files)
    return "/datasets/boats/images/1"


def row(state: AppState, image_id: int = 1) -> Image:
    with state.database.read() as session:
        return service.get_image(session, image_id)


def text_of(answer: Response) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", answer.text)).split())


def test_the_page_shows_the_image_with_captions_tokens_history_and_facts(
    client: TestClient, image: str
) -> None:
    answer = client.get(image)
    page = text_of(answer)
    assert "Image 1 of 3 in Boats. 80 × 64" in page
    assert "8 / 22 tokens, limit of starter" in page
    assert "from one.txt" in page
    assert "no run" in page
    assert 'href="/datasets/boats/images/2"' in answer.text
    tile = client.get("/datasets/boats").text
    assert f'href="{image}"' in tile
    assert "<span data-tokens-count>8 / 22</span>" in tile


def test_the_neighbors_are_those_of_the_filter_that_led_to_it(
    client: TestClient, image: str
) -> None:
    assert f'href="{image}?show=uncaptioned"' not in client.get("/datasets/boats").text
    bare = client.get("/datasets/boats/images/3?show=uncaptioned")
    assert "Image 1 of 1 that match in Boats" in text_of(bare)
    assert 'href="/datasets/boats?show=uncaptioned"' in bare.text
    found = client.get(f"{image}?q=chalk").text
    assert 'href="/datasets/boats/images/2?q=chalk"' in found
    # its caption was just written: the next one without a caption is still the next
    passed = client.get("/datasets/boats/images/2?show=uncaptioned")
    assert "Not among the 1 that match" in text_of(passed)
    assert 'href="/datasets/boats/images/3?show=uncaptioned"' in passed.text


def test_a_caption_saves_itself_and_what_is_typed_at_one_go_is_one_change(
    client: TestClient, state: AppState, image: str
) -> None:
    form = {"caption": "a b", "version": "1"}
    saved = client.post(f"{image}/captions/long", data=form, headers=JSON).json()
    assert saved == {"caption": "a b", "version": 2, "uncaptioned": 1, "tokens": 2}
    form = {"caption": "a big boat", "version": "2", "typing": "1"}
    assert client.post(f"{image}/captions/long", data=form, headers=JSON).json()["version"] == 3
    history = client.get(f"{image}/history", headers=PART)
    assert history.text.count("<li ") == 2
    assert row(state).caption == "a big boat"


def test_a_caption_of_two_tabs_keeps_both_texts_without_scripts(
    client: TestClient, state: AppState, image: str
) -> None:
    client.post(f"{image}/captions/long", data={"caption": "theirs", "version": "1"}, headers=HTML)
    form = {"caption": "mine", "version": "1"}
    answer = client.post(f"{image}/captions/long", data=form, headers=HTML)
    assert answer.status_code == 409
    assert "\nmine</textarea>" in answer.text
    assert "Changed elsewhere to “theirs”" in answer.text
    assert row(state).caption == "theirs"


def test_captions_are_added_shared_restored_and_removed(
    client: TestClient, state: AppState, image: str
) -> None:
    form = {"kind": "tags", "caption": "boat, sea"}
    answer = client.post(f"{image}/captions?q=boat", data=form, headers=HTML)
    assert answer.url.query == b"q=boat"
    assert "used 50 % of the time" in text_of(answer)
    shares = client.post(f"{image}/captions/tags/share", data={"share": "3"}, headers=PART)
    assert text_of(shares) == "used 25 % of the time used 75 % of the time"
    client.post(f"{image}/captions/long", data={"caption": "oops", "version": "1"}, headers=JSON)
    part = client.post(f"{image}/captions/long/1/restore", headers=PART)
    assert "\na boat, chalk, sea</textarea>" in part.text
    assert 'hx-swap-oob="innerHTML:#image-history"' in part.text
    assert "restored from <time" in part.text
    assert (
        "\nboat, sea</textarea>"
        not in client.post(f"{image}/captions/tags/remove", headers=PART).text
    )
    client.post(f"{image}/kind", data={"kind": "tags"}, headers=PART)
    assert (row(state).caption_kind, row(state).caption) == ("tags", "a boat, chalk, sea")


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("captions", {"kind": "tags", "caption": " "}, 422),
        ("captions", {"kind": "novel", "caption": "a"}, 422),
        ("captions/long/share", {"share": "0"}, 422),
        ("captions/long/share", {"share": "1e9"}, 422),
        ("captions/tags/remove", {}, 404),
        ("captions/long/7/restore", {}, 404),
        ("focus", {"left": "NaN", "top": "0"}, 422),
        ("focus", {"left": "101", "top": "0"}, 422),
        ("focus", {"left": "left", "top": ""}, 422),
        ("use", {"repeats": "0"}, 422),
    ],
)
def test_what_cannot_be_saved_is_told_and_changes_nothing(
    client: TestClient, state: AppState, image: str, path: str, form: dict[str, str], status: int
) -> None:
    before = row(state).model_dump()
    answer = client.post(f"{image}/{path}", data=form, headers=HTML)
    assert answer.status_code == status, answer.text
    assert row(state).model_dump() == before


def test_the_focus_moves_the_crop_of_the_page(
    client: TestClient, state: AppState, png: Png, image: str
) -> None:
    fake_workers.measured_base(state)
    with state.database.write() as session:
        wide = service.get_image(session, 1)
        wide.width, wide.height = 1600, 400
        session.add(wide)
    page = text_of(client.get(image))
    assert "42 % of the image is used. Drag the point, or use the arrow keys." in page
    form = {"left": "100", "top": "50"}
    moved = client.post(f"{image}/focus", data=form, headers=JSON).json()
    assert moved["left"] + moved["width"] == pytest.approx(1600)
    assert moved["text"] == "100 % from the left, 50 % from the top"
    assert row(state).focus == (1.0, 0.5)
    client.post(f"{image}/focus", data={"left": "", "top": ""}, headers=HTML)
    assert row(state).focus is None


def test_it_sets_aside_and_says_how_runs_use_it(
    client: TestClient, state: AppState, image: str
) -> None:
    head = client.post(f"{image}/set-aside", data={"aside": "1"}, headers=PART)
    assert "Set aside: not trained on" in text_of(head)
    assert "Take back" in text_of(head)
    client.post(f"{image}/use", data={"repeats": "3", "never_flip": "1"}, headers=PART)
    assert (row(state).repeats, row(state).never_flip, row(state).set_aside) == (3, True, True)
    client.post(f"{image}/set-aside", headers=HTML)
    assert not row(state).set_aside


def test_tags_are_completed_from_the_dataset(client: TestClient, image: str) -> None:
    tags = "/datasets/boats/tags"
    assert client.get(f"{tags}?q=CH").json() == ["chalk"]
    assert client.get(f"{tags}?q=boat").json() == ["a boat", "two boats"]
    assert client.get(f"{tags}?q=chalk").json() == []
    assert client.get(f"{tags}?q=").json() == []
    assert client.get(f"{tags}?q=%25").json() == []


def test_an_image_of_another_dataset_is_not_there(client: TestClient, image: str) -> None:
    client.post("/datasets", data={"name": "Cats"})
    assert client.get("/datasets/cats/images/1", headers=HTML).status_code == 404
    assert client.get("/datasets/boats/images/99", headers=HTML).status_code == 404
