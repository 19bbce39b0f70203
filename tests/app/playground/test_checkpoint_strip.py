"""Strips of checkpoints: one request with the adapter of each, and what one of them leads to."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.comparison.renders import stack_words
from app.registry.renders.strips import spread
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from tests import fake_workers
from tests.app.playground.test_live import SLOT
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of

CHALK = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7"


def trained(state: AppState, checkpoints: int = 3) -> Adapter:
    """Chalk, whose run has a checkpoint every ten steps."""
    fake_workers.queued_run(state, fake_workers.dataset(state), steps=400)
    training = fake_workers.FakeTraining(state)
    for _ in range(checkpoints):
        training.train(10)
        training.checkpoint()
    training.train(5)
    return training.finish()


def ask(client: TestClient, address: str = CHALK, **fields: str) -> Any:
    form = filled(client, address) | {"slot": SLOT, "checkpoints": "0"} | fields
    return client.post("/play/strip", data=form, headers=FRAGMENT)


def test_the_checkpoints_of_a_version_are_one_draft_in_the_order_of_their_steps(
    client: TestClient, state: AppState
) -> None:
    trained(state)
    fake_workers.adapter(state, "Night")
    address = "/play?adapter=night:0.4&adapter=chalk:0.8&prompt=a+castle&seed=7&count=2"
    page = client.get(address).text
    assert 'Chalk<span class="visually-hidden"> at each checkpoint' in page
    assert 'Night<span class="visually-hidden"> at each checkpoint' not in page  # its run kept none
    waiting = ask(client, address, checkpoints="1").text
    (strip,) = renders_of(state)
    assert f'hx-get="/renders/{strip.key}/strip?place=1"' in waiting
    slugs = [(used["slug"], used["version"]) for used in strip.adapters]
    steps = [("chalk-run-1", number) for number in (10, 20, 30)]
    assert slugs == [("night", 1), *steps, ("chalk", 1)]
    assert strip.weights is not None
    assert strip.weights[:2] == [[0.4, None, None, None, 0.8], [0.4, None, None, 0.8, None]]
    assert (strip.count, strip.draft_slot, strip.seed) == (4, f"{SLOT}-strip", 7)
    assert [used.slug for used in strip.stack_of(1)] == ["night", "chalk-run-1"]
    assert stack_words(strip) == "Night 0.40, Chalk 0.80"
    fake_workers.draw(state)
    done = client.get(f"/renders/{strip.key}/strip?place=1").text
    assert re.findall(r'data-label="([^"]*)"', done) == [
        "Chalk step 10, 0.80",
        "Chalk step 20, 0.80",
        "Chalk step 30, 0.80",
        "Chalk version 1, 0.80",
    ]
    assert re.findall(r'data-put="([^"]*)"', done)[0] == "1=chalk-run-1@10"
    assert 'max="3" step="1" value="3"' in done
    assert "All 4 images are ready." in done
    own = client.get(f"/renders/{strip.key}").text  # where a browser without scripts is sent
    assert "Night v1 0.4, Chalk v20 0.8</a>" in own
    assert "adapter=night%401%3A0.4&amp;adapter=chalk-run-1%4020%3A0.8&amp;prompt" in own
    assert client.get("/renders/99/strip?place=0").status_code == 404


def test_of_many_checkpoints_some_are_chosen_evenly_with_the_one_in_use(
    client: TestClient, state: AppState
) -> None:
    trained(state, 40)
    address = "/play?adapter=chalk-run-1%40130:0.8&prompt=a+castle&seed=7"
    ask(client, address)
    (strip,) = renders_of(state)
    steps = [used["version"] for used in strip.adapters]
    assert (len(steps), steps[0], steps[-1], 130 in steps) == (25, 10, 400, True)
    assert {after - before for before, after in itertools.pairwise(steps)} <= {10, 20, 30}
    assert [used.version for used in strip.stack_of(0)] == [130]
    assert spread(3, 25, among=1) == [0, 1, 2]


@pytest.mark.parametrize(
    ("address", "fields", "sentence"),
    [
        (CHALK, {"on-0": ""}, "Turn the adapter on"),
        (CHALK, {"checkpoints": "9" * 5_000}, "Turn the adapter on"),
        (CHALK, {"weight-0": "x"}, "Enter a number"),
        ("/play?adapter=ink:0.8&prompt=a+castle", {}, "has no checkpoints to go through"),
        ("/play?adapter=nobody:0.8&prompt=a+castle", {}, "There is no such adapter"),
    ],
)
def test_an_adapter_without_checkpoints_has_a_reason(
    client: TestClient, state: AppState, address: str, fields: dict[str, str], sentence: str
) -> None:
    trained(state)
    with state.database.write() as session:
        publish(session, NewVersion("Ink", "sd1", "a" * 64, 5, 8, 8.0))
    answer = ask(client, address, **fields)
    assert (answer.status_code, sentence in answer.text) == (200, True), answer.text
    assert renders_of(state) == []


def test_a_checkpoint_is_put_into_the_stack_and_the_strip_is_kept(
    client: TestClient, state: AppState
) -> None:
    trained(state)
    form = filled(client, CHALK) | {"put": "0=chalk-run-1@20"}
    answer = client.post("/play/stack", data=form, headers=FRAGMENT)
    assert '<option value="chalk-run-1@20" selected>step 20</option>' in answer.text
    assert "Chalk, step 20, is in the stack." in answer.text
    assert 'id="strip-panel"' not in answer.text
    assert "adapter=chalk-run-1%4020%3A0.8" in answer.headers["hx-replace-url"]
    for put in ("7=ink", "x=ink", "0=", "0=" + "a" * 9_000):
        answer = client.post("/play/stack", data=form | {"put": put}, headers=FRAGMENT)
        assert answer.status_code == 200
        assert "chalk-run" not in answer.text.partition('class="thumb"')[0]
        assert "chalk-run-1@" not in answer.text.partition("add-adapter")[0]


def test_an_image_of_a_strip_has_at_most_eight_adapters_and_null_leaves_one_out(
    client: TestClient, state: AppState
) -> None:
    trained(state, 20)
    found = client.get("/api/v1/runs/1/checkpoints").json()
    used = [{"id": row["adapter_id"], "version": row["step"], "weight": 1} for row in found]
    body = {"prompt": "a fox", "adapters": used}
    one_hot = [[1 if row == column else None for column in range(20)] for row in range(20)]
    answer = client.post("/api/v1/renders", json=body | {"weights": one_hot})
    assert answer.status_code == 202, answer.text
    row = client.get(f"/api/v1/renders/{answer.json()['id']}").json()
    assert (len(row["adapters"]), row["weights"]) == (20, one_hot)
    for weights in (None, [[1] * 9 + [None] * 11]):
        answer = client.post("/api/v1/renders", json=body | {"weights": weights})
        assert answer.status_code == 422
        assert "At most 8 adapters can be combined" in answer.text
