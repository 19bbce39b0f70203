"""The overlap of two adapters, against the full weight changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import layer_order
from worker.core.lora_files.tools.overlap import Overlap, measure_overlap
from worker.core.lora_files.tools.stack import ToolError

IN_ORDER = [
    "text_encoder.text_model.encoder.layers.2.mlp.fc1",
    "text_encoder.text_model.encoder.layers.10.mlp.fc1",
    "unet.conv_in",
    "unet.time_embedding.linear_1",
    "unet.down_blocks.0.resnets.0.conv1",
    "unet.down_blocks.0.attentions.0.proj_in",
    "unet.down_blocks.0.attentions.0.transformer_blocks.2.attn1.to_q",
    "unet.down_blocks.0.attentions.0.transformer_blocks.10.attn1.to_q",
    "unet.down_blocks.0.resnets.1.conv1",
    "unet.down_blocks.0.downsamplers.0.conv",
    "unet.down_blocks.1.resnets.0.conv1",
    "unet.mid_block.resnets.0.conv1",
    "unet.mid_block.attentions.0.proj_in",
    "unet.mid_block.resnets.1.conv1",
    "unet.up_blocks.0.attentions.0.proj_in",
    "unet.conv_out",
]
SHAPES: dict[str, tuple[int, ...]] = {
    "unet.up_blocks.0.resnets.0.conv1": (24, 16, 3, 3),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (32, 48),
    "unet.mid_block.attentions.0.proj_in": (20, 16),
}


def overlap(one: LoraAdapter, two: LoraAdapter, weight: float = 1.0) -> Overlap:
    return measure_overlap(LoadedAdapter("one", one, weight), LoadedAdapter("two", two))


def test_layers_are_sorted_as_an_image_passes_through_them() -> None:
    shuffled = IN_ORDER[1::2] + IN_ORDER[::2]
    assert sorted(shuffled, key=layer_order) == IN_ORDER
    odd = ["unet.1", "unet.a", "unet.down_blocks.x", "x", "unet.down_blocks.0.resnets.99999.a", ""]
    assert len(sorted(odd, key=layer_order)) == len(odd)


def test_the_cosines_are_those_of_the_full_changes() -> None:
    one = random_adapter(SHAPES, rank=4, alpha=2.0, seed=1, choose=bool)
    two = random_adapter(SHAPES, rank=3, seed=2, choose=bool)
    modules = [
        replace(b, down=torch.cat([b.down, a.down]), up=torch.cat([b.up, a.up], 1), alpha=7.0)
        for a, b in zip(one.modules, two.modules, strict=True)
    ]
    mixed = replace(two, modules=tuple(modules))
    found = overlap(one, mixed, weight=-0.5)
    assert [layer.key for layer in found.layers] == sorted(SHAPES, key=layer_order)
    changes = {
        module.key: (-module.delta().flatten(), other.delta().flatten())
        for module, other in zip(one.modules, mixed.modules, strict=True)
    }
    for layer in found.layers:
        first, second = changes[layer.key]
        expected = torch.nn.functional.cosine_similarity(first, second, dim=0)
        assert layer.cosine == pytest.approx(float(expected), abs=1e-5)
        assert layer.cosine < -0.3
        assert layer.inputs == pytest.approx(1.0)  # the spaces of the first lie in the second's
        assert layer.outputs == pytest.approx(1.0)
    both = [torch.cat(side) for side in zip(*changes.values(), strict=True)]
    expected = torch.nn.functional.cosine_similarity(*both, dim=0)
    assert found.cosine == pytest.approx(float(expected), abs=1e-5)


def test_random_adapters_share_what_chance_gives_and_equal_ones_all() -> None:
    shapes = {f"unet.down_blocks.{i}.attentions.0.proj_in": (256, 256) for i in range(4)}
    one, two = (random_adapter(shapes, rank=8, seed=seed, choose=bool) for seed in (1, 2))
    found = overlap(one, two)
    assert all(abs(layer.cosine) < 5 / 256 for layer in found.layers)
    assert all(0.5 < shared * 256 / 8 < 2 for x in found.layers for shared in (x.inputs, x.outputs))
    same = overlap(one, one)
    assert same.cosine == pytest.approx(1)
    assert all((x.cosine, x.inputs) == (pytest.approx(1), pytest.approx(1)) for x in same.layers)


def test_layers_of_one_adapter_alone_and_empty_changes_have_no_overlap() -> None:
    down, up = torch.ones(1, 4), torch.zeros(6, 1)
    empty = LoraModule(Component.DENOISER, "mid_block.proj", down, up, 1.0)
    full = replace(empty, up=torch.ones(6, 1))
    alone = replace(full, path="up_blocks.0.proj")
    found = overlap(LoraAdapter((full, alone)), LoraAdapter((empty,)))
    assert [(x.cosine, x.inputs, x.outputs) for x in found.layers] == [(0.0, 0.0, 0.0)]
    assert (found.cosine, found.changed) == (0.0, 2)
    half = overlap(LoraAdapter((full, alone)), LoraAdapter((full,)))
    assert half.layers[0].cosine == pytest.approx(1)
    assert half.cosine == pytest.approx(0.5**0.5)
    assert overlap(LoraAdapter((full,)), LoraAdapter((alone,))) == Overlap(0.0, 2, ())
    with pytest.raises(ToolError, match="are for different base models"):
        overlap(LoraAdapter((full,)), LoraAdapter((replace(full, down=torch.ones(1, 5)),)))


def test_a_measurement_can_be_stopped_between_layers() -> None:
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise InterruptedError

    one = LoadedAdapter("one", random_adapter(SHAPES, choose=bool))
    with pytest.raises(InterruptedError):
        measure_overlap(one, one, on_layer=stop)
    assert seen == [(1, 3), (2, 3)]
