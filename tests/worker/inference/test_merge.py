"""Adapters go into the weights and come out of them without a trace."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.bases.load import LoadedBase, load_base
from worker.core.inference.merge import MergedWeights
from worker.core.lora_files.compatible import AdapterMismatchError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import Part, part_of

CONV = "down_blocks.0.resnets.0.conv1"
LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def base(shallow_sd15_folder: Path) -> LoadedBase:
    return load_base(shallow_sd15_folder)


@pytest.fixture
def merged(base: LoadedBase) -> MergedWeights:
    return MergedWeights(base.adaptable(), base_name="starter")


def snapshot(base: LoadedBase) -> dict[str, Tensor]:
    return {
        f"{component}.{name}": tensor.clone()
        for component, module in base.adaptable().items()
        for name, tensor in module.state_dict().items()
    }


def same(base: LoadedBase, before: dict[str, Tensor]) -> bool:
    now = snapshot(base)
    return all(torch.equal(now[name], before[name]) for name in before)


def adapter_of(base: LoadedBase, seed: int, **options: float) -> LoadedAdapter:
    return LoadedAdapter(f"adapter-{seed}", random_adapter(base_shapes(base), seed=seed), **options)


def test_linear_and_convolution_weights_get_the_sum_of_the_changes(
    base: LoadedBase, merged: MergedWeights
) -> None:
    before = snapshot(base)
    one = adapter_of(base, 1, weight=0.7)
    two = adapter_of(base, 2, weight=-1.5)
    merged.apply([one, two])
    for path in (CONV, LINEAR):
        changes = [
            weight * next(m for m in loaded.adapter.modules if m.path == path).delta()
            for loaded, weight in ((one, 0.7), (two, -1.5))
        ]
        expected = before[f"unet.{path}.weight"] + sum(changes)
        found = base.denoiser.get_submodule(path).weight
        assert torch.allclose(found, expected, atol=1e-6)
        assert not torch.equal(found, before[f"unet.{path}.weight"])
    merged.apply([])
    assert same(base, before)


def test_a_thousand_changes_and_back_to_zero_are_bit_equal_to_the_base(
    base: LoadedBase, merged: MergedWeights
) -> None:
    before = snapshot(base)
    choice = random.Random(0)
    shapes = base_shapes(base)
    few = [
        random_adapter(shapes, seed=seed, choose=lambda key: key.endswith("attn2.to_k"))
        for seed in range(3)
    ]
    for _ in range(1000):
        stack = [
            LoadedAdapter(str(i), few[i], weight=choice.uniform(-10, 10))
            for i in choice.sample(range(3), choice.randint(1, 3))
        ]
        merged.apply(stack)
    assert not same(base, before)
    merged.apply([LoadedAdapter("0", few[0], weight=0.0, text_encoder_weight=0.0)])
    assert same(base, before)


def test_half_precision_bases_come_back_bit_equal_too(shallow_sd15_folder: Path) -> None:
    base = load_base(shallow_sd15_folder, dtype=torch.float16, components=["unet"])
    merged = MergedWeights(base.adaptable())
    before = snapshot(base)
    loaded = adapter_of(base, 1)
    assert merged.apply([loaded]) > 0
    weight = base.denoiser.get_submodule(LINEAR).weight
    change = next(m for m in loaded.adapter.modules if m.path == LINEAR).delta()
    expected = (before[f"unet.{LINEAR}.weight"].float() + change).half()
    assert torch.allclose(weight, expected, rtol=2**-10, atol=2**-14)
    merged.apply([])
    assert same(base, before)


def test_unet_and_text_encoder_have_weights_of_their_own(
    base: LoadedBase, merged: MergedWeights
) -> None:
    before = snapshot(base)
    merged.apply([adapter_of(base, 1, weight=0.0, text_encoder_weight=2.0)])
    now = snapshot(base)
    changed = {name for name in before if not torch.equal(now[name], before[name])}
    assert changed
    assert all(name.startswith("text_encoder.") for name in changed)
    merged.apply([])
    assert same(base, before)


def test_block_weights_multiply_the_weight_in_their_part_of_the_unet(
    base: LoadedBase, merged: MergedWeights
) -> None:
    before = snapshot(base)
    factors = {Part.INPUT: 0.5, Part.MIDDLE: 0.0, Part.OUTPUT: -2.0}
    everywhere = random_adapter(base_shapes(base), seed=1, choose=bool)
    plain = LoadedAdapter("everywhere", everywhere, weight=0.8)
    merged.apply([plain])
    merged.apply([replace(plain, block_weights=factors)])
    now = snapshot(base)
    met = set()
    for module in plain.adapter.modules:
        part = part_of(module.key)
        met.add(part)
        name = f"{module.key.replace('.text_model.', '.')}.weight"
        expected = before[name] + 0.8 * factors.get(part, 1.0) * module.delta()
        assert torch.allclose(now[name], expected, atol=1e-6)
        assert torch.equal(now[name], before[name]) is (part is Part.MIDDLE)
    assert met == {Part.TEXT, *factors, Part.OTHER}
    merged.apply([replace(plain, weight=0.0, block_weights=factors)])
    assert same(base, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_adapters_of_other_ranks_layers_and_scales_add_up(
    dtype: torch.dtype, shallow_sd15_folder: Path
) -> None:
    base = load_base(shallow_sd15_folder, dtype=dtype, components=["unet"])
    merged = MergedWeights(base.adaptable())
    before = snapshot(base)
    shapes = base_shapes(base)
    stack = [
        LoadedAdapter("narrow", random_adapter(shapes, rank=1, alpha=4.0, seed=1), weight=0.5),
        LoadedAdapter("keys", random_adapter(shapes, rank=8, alpha=2.0, seed=2, choose=is_key)),
        LoadedAdapter("silent", random_adapter(shapes, rank=3, alpha=0.0, seed=3), weight=2.0),
        LoadedAdapter("wide", random_adapter(shapes, rank=16, alpha=16.0, seed=4), weight=-1.0),
    ]
    for count in (4, 2, 3):  # the plan follows what is in the stack
        merged.apply(stack[:count])
        now = snapshot(base)
        for path in (CONV, LINEAR, KEY):
            expected = before[f"unet.{path}.weight"].float() + sum(
                loaded.weight * module.delta()
                for loaded in stack[:count]
                for module in loaded.adapter.modules
                if module.path == path
            )
            rounding = {"atol": 1e-6} if dtype is torch.float32 else {"rtol": 2e-3, "atol": 1e-4}
            assert torch.allclose(now[f"unet.{path}.weight"].float(), expected, **rounding)
    merged.apply([LoadedAdapter(loaded.name, loaded.adapter, weight=0.0) for loaded in stack])
    assert same(base, before)


def is_key(key: str) -> bool:
    return key.endswith("attn2.to_k")


def test_only_changed_layers_are_written(base: LoadedBase, merged: MergedWeights) -> None:
    shapes = base_shapes(base)
    keys = LoadedAdapter("k", random_adapter(shapes, choose=lambda k: k.endswith("attn2.to_k")))
    values = LoadedAdapter("v", random_adapter(shapes, choose=lambda k: k.endswith("attn2.to_v")))
    layers = len(keys.adapter.modules)
    assert merged.apply([keys]) == layers
    assert merged.apply([keys]) == 0
    assert merged.apply([keys, values]) == len(values.adapter.modules)
    assert merged.apply([values]) == layers
    assert merged.apply([]) == len(values.adapter.modules)


def test_only_targeted_originals_are_kept_and_freed_with_the_adapter(
    base: LoadedBase, merged: MergedWeights
) -> None:
    shapes = base_shapes(base)
    adapter = random_adapter(shapes, choose=lambda key: key.endswith("attn2.to_k"))
    merged.apply([LoadedAdapter("k", adapter)])
    sizes = [m.weight_shape[0] * m.weight_shape[1] * 4 for m in adapter.modules]
    assert merged.originals_bytes == sum(sizes)
    merged.apply([])
    assert merged.originals_bytes == 0


def test_an_adapter_of_another_base_changes_nothing(
    base: LoadedBase, merged: MergedWeights
) -> None:
    before = snapshot(base)
    good = adapter_of(base, 1)
    foreign = random_adapter(
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}
    )
    width = base.info.cross_attention_dim
    with pytest.raises(AdapterMismatchError, match=f"width 768; starter has {width}"):
        merged.apply([good, LoadedAdapter("foreign", foreign)])
    assert same(base, before)
