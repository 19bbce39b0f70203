"""An adapter scaled in the blocks of the UNet."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.lora_files.tools.test_resize import SHAPES
from worker.core.lora_files.parts import Part
from worker.core.lora_files.tools.scale import scale_blocks
from worker.core.lora_files.tools.stack import ToolError

ONLY_MIDDLE = {key: shape for key, shape in SHAPES.items() if "mid_block" in key}


def test_changes_are_multiplied_exactly_and_those_with_factor_zero_left_out() -> None:
    adapter = random_adapter(SHAPES, rank=4, alpha=3.0, choose=bool)
    seen: list[tuple[int, int]] = []
    made = scale_blocks(
        adapter, {Part.MIDDLE: -0.5}, on_module=lambda done, total: seen.append((done, total))
    )
    for before, after in zip(adapter.modules, made.adapter.modules, strict=True):
        factor = -0.5 if "mid_block" in before.key else 1.0
        assert torch.equal(after.delta(), factor * before.delta())
        assert (after.alpha, after.rank) == (before.alpha, before.rank)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert made.report.summary()["relative_error"] == 0
    left = scale_blocks(adapter, {Part.MIDDLE: 0.0}).adapter
    assert [module.key for module in left.modules] == [min(SHAPES)]


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ({Part.INPUT: 1.0}, "All factors are 1"),
        ({Part.MIDDLE: 0.0}, "Nothing of the adapter would be left"),
        ({Part.MIDDLE: float("nan")}, "is not a number"),
        ({Part.MIDDLE: 11.0}, "weights from -10 to 10"),
    ],
)
def test_factors_that_make_no_sense_are_refused(
    factors: Mapping[Part, float], sentence: str
) -> None:
    with pytest.raises(ToolError, match=sentence):
        scale_blocks(random_adapter(ONLY_MIDDLE, choose=bool), factors)
