"""Strips of weights: asked for on the page and in the service, and what is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.errors import InvalidInput
from app.registry.renders import listing, service
from app.registry.renders.strips import usual_weights
from app.registry.state import AppState
from tests import fake_workers
from tests.app.playground.test_live import SLOT
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of


def ask_for_strip(client: TestClient, address: str, place: str = "0", **fields: str) -> Any:
    form = filled(client, address) | {"slot": SLOT, "place": place} | fields
    return client.post("/play/strip", data=form, headers=FRAGMENT)


def test_a_strip_begins_with_the_weight_that_is_nearest() -> None:
    assert usual_weights(0.8)[:3] == [0.75, 1.0, 0.5]
    assert sorted(usual_weights(7)) == [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


def test_a_strip_of_one_adapter_beside_another_is_a_draft_with_its_images_in_order(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&prompt=a+castle&seed=7&count=3"
    waiting = ask_for_strip(client, address, "1").text
    (strip,) = renders_of(state)
    assert strip.weights is not None
    assert sorted(strip.weights) == [[0.4, weight] for weight in sorted(usual_weights(0.8))]
    assert (strip.count, strip.draft_slot, strip.seed) == (9, f"{SLOT}-strip", 7)
    assert f'hx-get="/renders/{strip.key}/strip?place=1"' in waiting
    fake_workers.draw(state)
    done = client.get(f"/renders/{strip.key}/strip?place=1").text
    assert "hx-trigger" not in done
    assert "Weight of Chalk" in done
    shown = [part.split('"')[0] for part in done.split('data-strip-weight="')[1:]]
    assert shown == ["-0.5", "-0.25", "0.0", "0.25", "0.5", "0.75", "1.0", "1.25", "1.5"]
    with state.database.read() as session:
        assert listing.recent_renders(session) == []
    page = client.get(f"/renders/{strip.key}").text  # where a browser without scripts is sent
    assert "adapter=night%401%3A0.4&amp;adapter=chalk%401%3A1.25" in page
    assert ">0.4, 1.25</a>" in page


def test_a_newer_strip_replaces_the_one_before_but_no_redraw(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7"
    client.post("/play/live", data=filled(client, address) | {"slot": SLOT}, headers=FRAGMENT)
    first, second = (ask_for_strip(client, address, prompt=text).status_code for text in "ab")
    assert (first, second) == (200, 200)
    assert [row.status for row in renders_of(state)] == ["queued", "queued", "canceled", "queued"]
    gone = client.get(f"/renders/{renders_of(state)[2].key}/strip")
    assert gone.status_code == 204


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
def test_what_can_have_no_strip_is_said(
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
    request = service.RenderRequest(prompt="a fox", adapters=used, weights=weights)
    with state.database.write() as session, pytest.raises(InvalidInput) as refused:
        service.create_render(session, request, state.store)
    assert sentence in refused.value.fields["weights"]


def test_strips_have_cache_keys_of_their_own(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    used = [fake_workers.weighted(adapter.key)]
    keys = set()
    for weights in (None, [[1.0]], [[1.0], [0.5]], [[0.5], [1.0]]):
        request = service.RenderRequest(prompt="a fox", seed=1, adapters=used, weights=weights)
        with state.database.write() as session:
            keys.add(service.create_render(session, request, state.store).cache_key)
    assert len(keys) == 4
