"""Weights whose sum is held, as a browser without scripts sends them."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from app.web.playground.adapter_rows import AdapterRow, hold_sum
from tests import fake_workers
from tests.app.playground.test_pages import filled, renders_of
from tests.app.runs.test_pages import form_of


@pytest.mark.parametrize(
    ("shown", "typed", "held"),
    [
        ("0.5 0.5", "0.8 0.5", "0.8 0.2"),
        ("0.5 0.5 0.25", "0.8 0.5 0.25", "0.8 0.3 0.15"),
        ("0.5 0.5 0.25", "0.7 0.7 0.25", "0.7 0.7 0"),  # two were changed
        ("1 0", "0.4 0", "0.4 0.6"),  # the others are at 0: all get the same
        ("0.5 0.5", "1.5 0.5", "1.5 0"),  # above the sum
        ("1 1 1", "0.9 1 1", "0.9 1.05 1.05"),
        ("0.333 0.333 0.334", "0.5 0.333 0.334", "0.5 0.25 0.25"),
        ("0.8 0.5 -0.5", "0.6 0.5 -0.5", "0.6 0.6 -0.4"),  # of both signs
        ("0.5 0.5", "0.5 0.5", "0.5 0.5"),
        ("0.5 0.5", "0.2 0.3", "0.2 0.3"),  # all were changed
        ("0.5 0.5", "abc 0.5", "abc 0.5"),
        ("0.5 nan", "0.2 0.5", "0.2 0.5"),
    ],
)
def test_the_weights_that_nobody_changed_are_scaled(shown: str, typed: str, held: str) -> None:
    pairs = zip(shown.split(), typed.split(), strict=True)
    rows = [AdapterRow("ink", weight=now, held=before) for before, now in pairs]
    assert [row.weight for row in hold_sum(rows)] == held.split()


def test_a_weight_that_is_off_is_no_part_of_the_sum() -> None:
    rows = [
        AdapterRow("ink", weight="0.8", held="0.5"),
        AdapterRow("chalk", weight="0.5", held="0.5"),
        AdapterRow("wash", weight="1", held="1", is_on=False),
    ]
    assert [row.weight for row in hold_sum(rows)] == ["0.8", "0.2", "1"]


def test_without_scripts_a_blend_holds_its_sum(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    address = "/play?adapter=chalk:0.5&adapter=night:0.25&mix=blend&prompt=x&seed=7"
    sent = filled(client, address)
    client.post("/play", data=sent | {"weight-1": "0.3"})
    assert [used.weight for used in renders_of(state)[1].stack] == [0.45, 0.3]
    client.post("/play", data=sent | {"weight-1": "0.3", "mix": ""})
    assert [used.weight for used in renders_of(state)[3].stack] == [0.5, 0.3]
    wrong = client.post("/play", data=sent | {"weight-1": "x"})
    again = form_of(wrong.text, "play-form") | {"weight-1": "0.5"}
    client.post("/play", data=again)
    assert [used.weight for used in renders_of(state)[5].stack] == [0.25, 0.5]
