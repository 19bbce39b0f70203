"""Adapters with their weights: the JSON of stored rows, and the names that REST uses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.tables.renders import Render

OF_A_RENDER = {
    "adapter_id": 1,
    "version_id": 2,
    "version": 3,
    "sha256": "b" * 64,
    "name": "Chalk",
    "slug": "chalk",
    "base_model_id": None,
    "clip_skip": 2,
    "weight": 0.8,
    "text_encoder_weight": 0.25,
}
OF_A_JOB: dict[str, Any] = {
    "adapter_id": 1,
    "version_id": 2,
    "version": 3,
    "slug": "chalk",
    "name": "Chalk",
    "weight": -0.5,
    "text_encoder_weight": None,
}


def test_stored_rows_are_read_and_written_as_they_were() -> None:
    render, job = map(ResolvedAdapter.model_validate, (OF_A_RENDER, OF_A_JOB))
    assert render.for_render() == OF_A_RENDER
    assert job.for_job() == OF_A_JOB
    assert job.for_render()["text_encoder_weight"] == -0.5
    assert Render(adapters=[OF_A_RENDER]).stack == [render]
    blocks = {"block_weights": {"input": 0.5, "middle": 1.0, "output": 0.0}}
    assert ResolvedAdapter.model_validate(OF_A_RENDER | blocks).for_render() == OF_A_RENDER | blocks
    assert ResolvedAdapter.model_validate(OF_A_JOB | blocks).for_job() == OF_A_JOB | blocks


def test_rest_names_an_adapter_by_id() -> None:
    sent = {"id": 7, "weight": 0.8, "text_encoder_weight": 0, "version": "best"}
    assert WeightedAdapter.model_validate(sent) == WeightedAdapter(
        adapter_id=7, weight=0.8, text_encoder_weight=0, version="best"
    )
    sent["block_weights"] = {"input": 1}
    assert WeightedAdapter.model_validate(sent).block_weights is None  # the same as none
    assert "id" in WeightedAdapter.model_json_schema()["properties"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 0},
        {"id": 2**31},
        {"version": 0},
        {"version": ""},
        {"version": "x" * 61},
        {"strength": 1},
    ],
)
def test_invalid_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WeightedAdapter.model_validate({"id": 1} | wrong)


@pytest.mark.parametrize("name", ["weight", "text_encoder_weight"])
@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (10.5, "The weight is 10.5; weights from -10 to 10 are accepted."),
        (-11, "The weight is -11; weights from -10 to 10 are accepted."),
        (float("nan"), "The weight is not a number."),
        (float("inf"), "The weight is not a number."),
    ],
)
def test_a_weight_out_of_bounds_is_refused(name: str, weight: float, sentence: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        WeightedAdapter.model_validate({"id": 1, name: weight})
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        WeightedAdapter.model_validate({"id": 1, "block_weights": {"middle": weight}})


@pytest.mark.parametrize(
    ("weights", "is_off"),
    [((0.0, None), True), ((0.0, 0.0), True), ((0.0, 0.5), False), ((1.0, 0.0), False)],
)
def test_an_adapter_without_weight_is_off(
    weights: tuple[float, float | None], is_off: bool
) -> None:
    weight, text_encoder_weight = weights
    adapter = ResolvedAdapter.model_validate(
        OF_A_JOB | {"weight": weight, "text_encoder_weight": text_encoder_weight}
    )
    assert adapter.is_off is is_off
