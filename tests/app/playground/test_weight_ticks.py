"""The words below a weight slider: each at its tick, or beside the number next to it."""

from __future__ import annotations

import pytest

from app.web.playground.stack import WeightTick, weight_ticks
from worker.core.lora_files.weights import WeightCard

NUMBERS = [WeightTick(0, "0", 33.33), WeightTick(1, "1", 66.67)]


@pytest.mark.parametrize(
    ("usual", "at", "anchor"),
    [
        (-1.0, 0.0, "start"),
        (-0.1, 33.33, "end"),
        (0.0, 33.33, "start"),
        (0.1, 33.33, "start"),
        (0.5, 50.0, "middle"),
        (0.9, 66.67, "end"),
        (1.0, 66.67, "start"),
        (1.5, 83.33, "middle"),
        (1.95, 100.0, "end"),
        (2.0, 100.0, "end"),
    ],
)
def test_the_usual_weight_stands_below_its_tick_or_beside_a_number(
    usual: float, at: float, anchor: str
) -> None:
    *numbers, tick = weight_ticks(usual)
    assert numbers == NUMBERS
    assert (tick.weight, tick.word, tick.at, tick.anchor) == (usual, "usual", at, anchor)


@pytest.mark.parametrize("usual", [None, -1.05, 2.05, 10.0])
def test_a_weight_that_the_slider_does_not_reach_has_no_tick(usual: float | None) -> None:
    assert weight_ticks(usual) == NUMBERS


def test_a_base_that_needs_larger_weights_has_a_longer_slider() -> None:
    zero, one, usual = weight_ticks(1.6, factor=2)
    assert [(tick.weight, tick.word, tick.at) for tick in (zero, one)] == [
        (0, "0", 33.33),
        (2, "2", 66.67),
    ]
    assert (usual.weight, usual.at, usual.anchor) == (1.6, 66.67, "end")
    assert weight_ticks(4.1, factor=2) == [zero, one]


def test_a_weight_card_has_ticks_where_the_slider_reaches() -> None:
    *others, last = weight_ticks(0.5, WeightCard(start=0.25, best=0.8, breaks=2.5))
    assert [(tick.weight, tick.word) for tick in others] == [
        (0, "0"),
        (1, "1"),
        (0.25, ""),
        (0.8, ""),
    ]
    assert last.word == "usual"
