"""Sketches of weights: those of nearly the same changes agree, whatever the file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.sketch import NUMBERS, sketch_weights


def made(seed: int, rank: int = 4) -> LoraAdapter:
    dice = torch.Generator().manual_seed(seed)
    modules = [
        LoraModule(
            Component.DENOISER,
            f"block.{number}",
            torch.randn(rank, 24, generator=dice),
            torch.randn(32, rank, generator=dice),
            float(rank),
        )
        for number in range(6)
    ]
    return LoraAdapter(tuple(modules))


def test_number_type_factor_and_rank_of_the_file_change_little() -> None:
    one = made(0)
    half = LoraAdapter(
        tuple(
            replace(module, down=module.down.half().float(), alpha=0.5 * module.alpha)
            for module in one.modules
        )
    )
    padded = LoraAdapter(
        tuple(
            replace(
                module,
                down=torch.cat([module.down, torch.zeros(4, 24)]),
                up=torch.cat([module.up, torch.ones(32, 4)], dim=1),
                alpha=2 * module.alpha,
            )
            for module in one.modules
        )
    )
    sketch = sketch_weights(one)
    assert (sketch.shape, float(sketch.norm())) == ((NUMBERS,), pytest.approx(1))
    assert float(sketch @ sketch_weights(half)) > 0.999
    assert float(sketch @ sketch_weights(padded)) == pytest.approx(1, abs=1e-4)


def test_others_are_far_and_no_change_has_no_direction() -> None:
    assert abs(float(sketch_weights(made(0)) @ sketch_weights(made(1)))) < 0.4
    none = LoraAdapter(tuple(replace(module, alpha=0.0) for module in made(0).modules))
    assert not sketch_weights(none).any()
