"""A size that is far from the base model's own is said before the image is generated."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.base_models.sizes import size_note
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from tests import fake_workers
from tests.app.playground.test_pages import FRAGMENT, HTML, filled
from tests.conftest import embedded_info

SIDE = embedded_info().resolution
FAR = f"{4 * SIDE} × {4 * SIDE} is far from the {SIDE} × {SIDE} that “starter” was trained at"
WIDE = {"width": str(4 * SIDE), "height": str(4 * SIDE)}


@pytest.mark.parametrize(
    ("side", "width", "height", "is_far"),
    [
        (128, 512, 512, True),
        (128, 256, 256, True),
        (128, 128, 192, False),
        (128, 128, 264, True),
        (128, 64, 64, True),
        (512, 768, 768, False),
        (512, 512, 1024, False),
        (1024, 832, 1216, False),
        (1024, 512, 512, True),
    ],
)
def test_a_size_is_far_by_its_area_or_its_longer_side(
    side: int, width: int, height: int, is_far: bool
) -> None:
    base = BaseModel(name="b", slug="b", source="b", resolution=side)
    assert bool(size_note(base, width, height)) is is_far


def test_the_page_says_it_while_the_size_is_typed(client: TestClient, state: AppState) -> None:
    sent = filled(client)
    assert client.post("/play/size", data=sent, headers=FRAGMENT).text == ""
    assert FAR in client.post("/play/size", data=sent | WIDE, headers=FRAGMENT).text
    for half_typed in ("", "x", "0", "9" * 5_000, "-8", "²"):
        answer = client.post("/play/size", data=sent | {"width": half_typed}, headers=FRAGMENT)
        assert (answer.status_code, answer.text) == (200, "")
    beyond = sent | {"width": str(8 * SIDE), "height": str(8 * SIDE)}
    assert "is too large for" in client.post("/play/size", data=beyond, headers=FRAGMENT).text
    assert FAR in client.get(f"/play?width={4 * SIDE}&height={4 * SIDE}", headers=HTML).text
    another = client.post("/play/stack", data=sent | WIDE, headers=FRAGMENT).text
    assert FAR in another  # it depends on the base model as well


def test_what_is_too_large_is_said_once_with_a_size_that_is_possible(client: TestClient) -> None:
    sent = filled(client, "/play?prompt=a+castle&seed=7") | {"width": "8192", "height": "8192"}
    answer = client.post("/play", data=sent, headers=FRAGMENT)
    assert answer.status_code == 422
    assert answer.text.count("8192 × 8192 is too large for") == 1
    assert f"Choose at most {4 * SIDE} × {4 * SIDE}" in answer.text
    assert "the nearest is" not in answer.text  # 2,048, which would be refused as well
    small = client.post("/play", data=sent | {"width": "13", "height": "7"}, headers=FRAGMENT).text
    assert small.count("the nearest is 32.") == 2
    assert "is far from" not in small


def test_the_result_says_it_while_it_waits_and_afterwards(
    client: TestClient, state: AppState
) -> None:
    sent = filled(client, "/play?prompt=a+castle&seed=7") | WIDE
    address = client.post("/play", data=sent, follow_redirects=False).headers["location"]
    assert FAR in client.get(address, headers=HTML).text
    fake_workers.draw(state)
    again = client.post("/play", data=sent, follow_redirects=False).headers["location"]
    assert FAR in client.get(again, headers=HTML).text  # from the cache


def test_the_api_says_it_in_its_answer(client: TestClient) -> None:
    size = {"width": 4 * SIDE, "height": 4 * SIDE}
    near = client.post("/api/v1/renders", json={"prompt": "a fox"}).json()
    far = client.post("/api/v1/renders", json={"prompt": "a fox"} | size).json()
    assert near["note"] is None
    assert far["note"].startswith(FAR)
    assert client.get(f"/api/v1/renders/{far['id']}").json()["note"] == far["note"]
    grid = {"request": {"prompt": "a fox"} | size, "columns": {"kind": "seed", "values": "1, 2"}}
    assert client.post("/api/v1/grids/estimate", json=grid).json()["notes"] == [far["note"]]
