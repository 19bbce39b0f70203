"""Strips of weights: requests of the page and of the service, and refused ones."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.errors import InvalidInput
from app.registry.renders import listing, service
from app.registry.renders.requests import RenderRequest
from app.registry.renders.strips import usual_weights
from app.registry.state import AppState
from tests import fake_workers
from tests.app.playground.test_live import SLOT
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of


def ask_for_strip(client: TestClient, address: str, place: str = "0", **fields: str) -> Any:
    form = filled(client, address) | {"slot": SLOT, "weights": place} | fields
    return client.post("/play/strip", data=form, headers=FRAGMENT)


def ask_for_square(client: TestClient, address: str, **fields: str) -> Any:
    form = filled(client, address) | {"slot": SLOT} | fields
    return client.post("/play/strip", data=form, headers=FRAGMENT)


def test_a_strip_begins_with_the_weight_that_is_nearest() -> None:
    assert usual_weights(0.8)[:3] == [(0.75,), (1.0,), (0.5,)]
    assert sorted(usual_weights(7)) == [(place / 4,) for place in range(-2, 7)]


def test_a_strip_reaches_the_weights_that_a_base_model_needs() -> None:
    assert sorted(usual_weights(2, factor=2)) == [(place / 2,) for place in range(-2, 7)]
    assert usual_weights(2, factor=2)[0] == (2.0,)
    assert {down for down, _ in usual_weights(2, 2, factor=2)} == {0, 0.5, 1.0, 1.5, 2.0}


def test_a_strip_of_one_adapter_beside_another_is_a_draft_with_its_images_in_order(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&prompt=a+castle&seed=7&count=3"
    waiting = ask_for_strip(client, address, "1").text
    (strip,) = renders_of(state)
    assert strip.weights is not None
    assert sorted(strip.weights) == [[0.4, *weights] for weights in sorted(usual_weights(0.8))]
    assert (strip.count, strip.draft_slot, strip.seed) == (9, f"{SLOT}-strip", 7)
    assert f'hx-get="/renders/{strip.key}/strip?place=1"' in waiting
    fake_workers.draw(state)
    done = client.get(f"/renders/{strip.key}/strip?place=1").text
    assert "hx-trigger" not in done
    assert "Weight of Chalk" in done
    assert "All 9 images are ready." in done
    shown = [part.split('"')[0] for part in done.split('data-weights="')[1:]]
    assert shown == ["-0.5", "-0.25", "0.0", "0.25", "0.5", "0.75", "1.0", "1.25", "1.5"]
    with state.database.read() as session:
        assert listing.recent_renders(session) == []
    page = client.get(f"/renders/{strip.key}").text  # where a browser without scripts is sent
    assert "adapter=night%401%3A0.4&amp;adapter=chalk%401%3A1.25" in page
    shown = re.findall(">0.4, ([-0-9.]+)</a>", page)
    assert shown == ["-0.5", "-0.25", "0", "0.25", "0.5", "0.75", "1", "1.25", "1.5"]


def test_a_newer_strip_replaces_the_one_before_but_no_redraw(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7"
    client.post("/play/live", data=filled(client, address) | {"slot": SLOT}, headers=FRAGMENT)
    first, second = (ask_for_strip(client, address, prompt=text).status_code for text in "ab")
    assert (first, second) == (200, 200)
    assert [row.status for row in renders_of(state)] == ["queued", "queued", "canceled", "queued"]
    gone = client.get(f"/renders/{renders_of(state)[2].key}/strip?place=0")
    assert gone.status_code == 204


def test_a_square_begins_next_to_the_pair_and_has_it_within() -> None:
    pairs = usual_weights(0.8, 0.4)
    assert pairs[:2] == [(0.75, 0.5), (0.75, 0.25)]
    assert sorted(pairs) == [(down / 4, across / 4) for down in range(5) for across in range(5)]
    assert sorted({down for down, _ in usual_weights(1.3, 0)}) == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert sorted({down for down, _ in usual_weights(-0.3, 0)}) == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert max(usual_weights(10, -10)) == (10.0, -9.0)


def test_a_square_of_two_adapters_beside_a_third_is_one_draft(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night", "Moss"):
        fake_workers.adapter(state, name)
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&adapter=moss:1.2&prompt=a+castle&seed=7"
    page = client.get(address).text
    assert re.findall(r'<option value="(\d-\d)">([^<]*)<', page) == [
        ("0-1", "Night and Chalk"),
        ("0-2", "Night and Moss"),
        ("1-2", "Chalk and Moss"),
    ]
    assert 'data-columns="5"' not in ask_for_square(client, address, pair="2-0", square="0-1").text
    (square,) = renders_of(state)
    assert square.weights is not None
    assert square.weights[0] == [0.5, 0.8, 1.25]
    assert {row[1] for row in square.weights} == {0.8}
    assert (square.count, square.draft_slot, square.seed) == (25, f"{SLOT}-strip", 7)
    fake_workers.draw(state)
    done = client.get(f"/renders/{square.key}/strip?place=0&place=2").text
    assert "Down: Night</span> <span>Across: Moss<" in done
    assert "all 25 are ready" in done
    shown = re.findall(r'data-weights="([^"]*)" data-label="([^"]*)"', done)
    assert shown[0] == ("0.0 0.25", "Night 0.00, Moss 0.25")
    assert shown[24] == ("1.0 1.25", "Night 1.00, Moss 1.25")
    assert done.count('tabindex="0"') == 1
    again = client.get(f"/renders/{square.key}").text  # a seed or settings of it are for one image
    assert "count=25" not in again


def test_the_square_of_a_link_is_of_the_first_two_that_are_on(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night", "Moss"):
        fake_workers.adapter(state, name)
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&adapter=moss:1&prompt=a+castle&seed=7"
    waiting = ask_for_square(client, address, **{"on-0": ""}).text
    (square,) = renders_of(state)
    assert [used["slug"] for used in square.adapters] == ["chalk", "moss"]
    assert f"/renders/{square.key}/strip?place=1&amp;place=2" in waiting


def test_adapters_of_the_prompt_keep_their_weight_in_a_strip(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    ask_for_strip(client, "/play?adapter=chalk:0.8&seed=7", prompt="a fox <lora:night:0.3>")
    (strip,) = renders_of(state)
    assert strip.weights is not None
    assert strip.weights[0] == [0.75, 0.3]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"on-0": ""}, "Turn two adapters on"),
        ({"pair": "0-0"}, "Turn two adapters on"),
        ({"pair": "0-7"}, "Turn two adapters on"),
        ({"weight-1": "1e9"}, "The weight must be between"),
        ({"prompt": "x" * 9_000}, "prompt: "),
    ],
)
def test_a_square_that_cannot_be_made_has_a_reason(
    client: TestClient, state: AppState, fields: dict[str, str], sentence: str
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&prompt=a+castle"
    answer = ask_for_square(client, address, **fields)
    assert (answer.status_code, sentence in answer.text) == (200, True), answer.text
    assert renders_of(state) == []


def test_an_image_that_is_no_strip_has_none(client: TestClient, state: AppState) -> None:
    client.post("/play", data=filled(client, "/play?prompt=a+castle"))
    assert client.get("/renders/1/strip?place=0").status_code == 404


@pytest.mark.parametrize(
    ("place", "fields", "sentence"),
    [
        ("1", {}, "Turn the adapter on"),
        ("x", {}, "Turn the adapter on"),
        ("0", {"on-0": ""}, "Turn the adapter on"),
        ("0", {"prompt": ""}, "prompt: "),
        ("0", {"weight-0": "NaN"}, "Enter a number"),
    ],
)
def test_a_strip_that_cannot_be_made_has_a_reason(
    client: TestClient, state: AppState, place: str, fields: dict[str, str], sentence: str
) -> None:
    fake_workers.adapter(state)
    answer = ask_for_strip(client, "/play?adapter=chalk:0.8&prompt=a+castle", place, **fields)
    assert (answer.status_code, sentence in answer.text) == (200, True), answer.text
    assert renders_of(state) == []


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([], "1 to 25 images"),
        ([[0.1]] * 26, "1 to 25 images"),
        ([[0.1], [0.1, 0.2]], "needs 1 weight, one for each adapter"),
        ([[1e9]], "The weight is 1e+09"),
        ([[math.nan]], "not a number"),
    ],
)
def test_weights_that_are_no_strip_are_refused(
    client: TestClient, state: AppState, weights: list[list[float]], sentence: str
) -> None:
    adapter = fake_workers.adapter(state)
    used = [fake_workers.weighted(adapter.key)]
    request = RenderRequest.model_construct(prompt="a fox", adapters=used, weights=weights)
    with state.database.write() as session, pytest.raises(InvalidInput) as refused:
        service.create_render(session, request, state.store)
    assert sentence in refused.value.fields["weights"]


def test_strips_have_cache_keys_of_their_own(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    used = [fake_workers.weighted(adapter.key)]
    keys = set()
    for weights in (None, [[1.0]], [[1.0], [0.5]], [[0.5], [1.0]]):
        request = RenderRequest(prompt="a fox", seed=1, adapters=used, weights=weights)
        with state.database.write() as session:
            keys.add(service.create_render(session, request, state.store).cache_key)
    assert len(keys) == 4
