"""Axes of grids as people write them: lists, ranges, alternatives."""

from __future__ import annotations

import pytest

from app.registry.errors import InvalidInput
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders.grids.cells import cell_request
from app.registry.renders.grids.numbers import expand_alternatives, has_alternatives, read_numbers
from app.registry.renders.requests import RenderRequest
from app.registry.tables.axes import Axis, AxisKind, AxisValue


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.25 to 1.25 by 0.25", [0.25, 0.5, 0.75, 1, 1.25]),
        ("1 to -1 by 0.5", [1, 0.5, 0, -0.5, -1]),
        ("−0.5 .. 0.5 step 0.5", [-0.5, 0, 0.5]),
        ("0-1.5 (+0.25)", [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]),
        ("0-1 [5]", [0, 0.25, 0.5, 0.75, 1]),
        ("1-3, 7", [1, 2, 3, 7]),
        ("0,5; 0,75", [0.5, 0.75]),
        ("1\n2", [1, 2]),
        ("", []),
    ],
)
def test_lists_and_ranges_are_read(text: str, numbers: list[float]) -> None:
    assert [float(number) for number in read_numbers(text)] == numbers


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("NaN", "no number and no range"),
        ("1e9", "no number and no range"),
        ("9" * 5_000, "no number and no range"),
        ("1 to 2 by 0", "a step of 0"),
        ("0 to 100000 by 0.001", "100,000,001 values or more"),
        ("0-1 [999999]", "999,999 values or more"),
        ("1-300, 1-300", "600 values or more"),
    ],
)
def test_an_invalid_range_is_refused_with_the_reason(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        read_numbers(text)


def test_alternatives_are_found_in_a_text_of_any_length() -> None:
    for text in ("{" + "|" * 90_000, "{|" * 40_000):
        assert not has_alternatives(text)
        assert has_alternatives(text + "}")


def test_alternatives_make_every_prompt() -> None:
    assert expand_alternatives("a {red|blue} {cat|dog}, {ink}") == [
        "a red cat, {ink}",
        "a red dog, {ink}",
        "a blue cat, {ink}",
        "a blue dog, {ink}",
    ]
    assert expand_alternatives("a {|big} cat") == ["a cat", "a big cat"]
    with pytest.raises(InvalidInput, match="1,048,576 prompts"):
        expand_alternatives("{a|b}" * 20)
    with pytest.raises(InvalidInput, match="make more than 10,000,000 prompts; a grid has"):
        expand_alternatives("{a|b}" * 400)


def test_a_checkpoint_has_all_weights_of_the_adapter_it_stands_in_for() -> None:
    ink = WeightedAdapter.model_validate(
        {"id": 1, "weight": 0.3, "text_encoder_weight": 0.2, "block_weights": {"middle": 0.5}}
    )
    step = {"adapter_id": 5, "version": 40, "weight": None}
    values = [
        AxisValue(label="Step 40", value=step),
        AxisValue(label="", value=step | {"weight": 1}),
    ]
    axis = Axis(kind=AxisKind.CHECKPOINT, text="7", values=values)
    request = RenderRequest(prompt="a castle", adapters=[ink])
    (kept,), (own,) = (cell_request(request, [axis], place).adapters for place in (0, 1))
    assert kept == ink.model_copy(update={"adapter_id": 5, "version": 40})
    assert own == kept.model_copy(update={"weight": 1.0})
