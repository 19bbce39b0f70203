"""Adapters for Z-Image in the layouts of every program: read as trained, written for all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.worker.bases.tiny_zimage import zimage_transformer
from tests.worker.lora_files.layouts import (
    Tensors,
    dotted,
    fused,
    kohya_name,
    with_old_leaves,
    write,
)
from tests.worker.lora_files.random_adapters import metadata, random_adapter
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.compatible import adaptable_layers, explain_mismatch, layer_weight
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import export
from worker.core.lora_files.file_family import find_family
from worker.core.lora_files.file_layout import read_layout
from worker.core.lora_files.inspecting import inspect_file
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import Part, layer_order, part_of
from worker.core.lora_files.proof.foreign import check_file
from worker.core.lora_files.proof.loading import (
    DiffusersRefusal,
    load_with_diffusers,
    measure_loaded_adapter,
)
from worker.core.lora_files.proof.result import Verdict
from worker.core.lora_files.reading import read_adapter, read_with_notes
from worker.core.lora_files.tools.combine import MergeOptions, merge_adapters
from worker.core.lora_files.tools.overlap import measure_overlap
from worker.core.lora_files.tools.resize import ResizeOptions, resize_adapter
from worker.core.lora_files.tools.scale import scale_blocks
from worker.core.lora_files.tools.stack import ToolError
from worker.core.words import FileFormat, WeightDtype

ZIMAGE = BaseFamily.ZIMAGE
RANK, ALPHA = 4, 2.0
SETTINGS = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["to_q"], "peft_type": "LORA"}
IN_HEADER = {
    "lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in SETTINGS.items()})
}


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    torch.manual_seed(0)
    return zimage_transformer()


@pytest.fixture(scope="module")
def adapter(transformer: nn.Module) -> LoraAdapter:
    shapes = {
        f"unet.{path}": tuple(layer_weight(layer).shape)
        for path, layer in adaptable_layers("unet", transformer).items()
    }
    return random_adapter(shapes, rank=RANK, alpha=ALPHA, choose=in_a_block)


@pytest.fixture(scope="module")
def large_adapter() -> LoraAdapter:
    """One block of the published size."""
    return random_adapter(
        family_shapes(ZIMAGE),
        rank=2,
        alpha=1.0,
        choose=lambda key: key.startswith("unet.layers.3.") and in_a_block(key),
    )


def in_a_block(key: str) -> bool:
    return ".attention." in key or ".feed_forward." in key


def original(path: str) -> str:
    return re.sub(r"to_[qkv]$", "qkv", path).replace("to_out.0", "out")


LAYOUTS: dict[str, tuple[Callable[[LoraAdapter], Tensors], Mapping[str, str], float]] = {
    "diffusion_model.": (lambda a: dotted(a, "diffusion_model."), {}, 1.0),
    "diffusion_model., alpha": (lambda a: dotted(a, "diffusion_model.", alpha=True), {}, 0.5),
    "diffusion_model., settings": (lambda a: dotted(a, "diffusion_model."), IN_HEADER, 0.5),
    "OneTrainer": (lambda a: with_old_leaves(a, "diffusion_model."), {}, 0.5),
    "transformer.": (lambda a: dotted(a, "transformer."), {}, 1.0),
    "transformer., alpha": (lambda a: dotted(a, "transformer.", alpha=True), {}, 0.5),
    "transformer., settings": (lambda a: dotted(a, "transformer."), IN_HEADER, 0.5),
    "old OneTrainer": (lambda a: with_old_leaves(a, "transformer."), {}, 0.5),
    "bare": (lambda a: dotted(a, ""), {}, 1.0),
    "PEFT": (lambda a: dotted(a, "base_model.model."), {}, 1.0),
    "PEFT of a pipeline": (lambda a: dotted(a, "base_model.model.transformer."), {}, 1.0),
    "kohya": (lambda a: with_old_leaves(a, "lora_unet_", flat=True), {}, 0.5),
    "kohya, two underscores": (lambda a: with_old_leaves(a, "lora_unet__", flat=True), {}, 0.5),
    "lora_transformer_": (lambda a: with_old_leaves(a, "lora_transformer_", flat=True), {}, 0.5),
    "lycoris_": (lambda a: with_old_leaves(a, "lycoris_", flat=True), {}, 0.5),
    "kohya, fused": (lambda a: fused(a, original, kohya_name), {}, 0.5),
    "diffusion_model., fused": (
        lambda a: fused(a, original, lambda p: f"diffusion_model.{p}"),
        {},
        0.5,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_at_the_strength_of_its_training(
    layout: str, adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors_of, header, strength = LAYOUTS[layout]
    found = read_adapter(write(tmp_path / "a.safetensors", tensors_of(adapter), header))
    expected = {module.key: module.delta() for module in adapter.modules}
    assert {module.key for module in found.modules} == expected.keys()
    for module in found.modules:
        assert module.rank == RANK  # also of a layer that was one with others
        scale = strength / 0.5  # of the adapter
        torch.testing.assert_close(module.delta(), scale * expected[module.key])


def test_the_names_decide_nothing_else_the_shapes_the_family(
    large_adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors = with_old_leaves(large_adapter, "lora_unet_", flat=True)
    path = write(tmp_path / "a.safetensors", tensors)
    assert find_family(read_layout(path)) == (ZIMAGE, [])
    inspection = inspect_file(path)
    assert inspection.bases == (ZIMAGE.label,)
    assert inspection.targets == {"attention": 4, "feed-forward": 3}
    assert [block.name for block in inspection.blocks] == ["unet.layers.3"]


@pytest.mark.parametrize("format", [FileFormat.KOHYA, FileFormat.PEFT])
def test_a_download_is_read_by_every_program(
    format: FileFormat, large_adapter: LoraAdapter, tmp_path: Path
) -> None:
    path = tmp_path / "out.safetensors"
    about = metadata(family=ZIMAGE)
    proof = export(large_adapter, path, format=format, dtype=WeightDtype.BF16, metadata=about)
    programs = {result.name: result.verdict for result in proof.loaders}
    assert programs == dict.fromkeys(("comfyui", "invokeai", "cpp", "diffusers"), Verdict.RIGHT)
    with safe_open(path, "pt") as file:
        names, header = list(file.keys()), file.metadata()
    prefix = "transformer." if format is FileFormat.PEFT else "diffusion_model."
    assert f"{prefix}layers.3.attention.to_q.lora_A.weight" in names
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert header["modelspec.architecture"] == "Z-Image/lora"
    assert "lora_adapter_metadata" not in header
    assert "ss_v2" not in header
    assert find_family(read_layout(path)) == (ZIMAGE, [])


@pytest.mark.parametrize("format", [FileFormat.KOHYA, FileFormat.PEFT])
def test_diffusers_loads_a_download_at_full_strength(
    format: FileFormat, adapter: LoraAdapter, transformer: nn.Module, tmp_path: Path
) -> None:
    path, parts = tmp_path / "out.safetensors", {"unet": transformer}
    about = metadata(family=ZIMAGE)
    proof = export(adapter, path, format=format, dtype=WeightDtype.FP32, metadata=about)
    assert proof.passed
    assert {result.verdict for result in proof.loaders[:-1]} == {Verdict.FOREIGN}  # a tiny base
    with load_with_diffusers(path, parts, ZIMAGE):
        loaded = measure_loaded_adapter(adapter, parts)
    assert loaded.worst_error < 1e-6
    half = replace(adapter, modules=tuple(replace(m, alpha=m.alpha / 2) for m in adapter.modules))
    with load_with_diffusers(path, parts, ZIMAGE):
        assert measure_loaded_adapter(half, parts).worst_error > 0.9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_rule_of_diffusers_says_what_it_does(
    layout: str, adapter: LoraAdapter, transformer: nn.Module, tmp_path: Path
) -> None:
    tensors_of, header, _ = LAYOUTS[layout]
    path, parts = write(tmp_path / "a.safetensors", tensors_of(adapter), header), transformer
    rule = next(r for r in check_file(path, ZIMAGE).loaders if r.name == "diffusers")
    try:
        with load_with_diffusers(path, {"unet": parts}, ZIMAGE):
            loaded = measure_loaded_adapter(read_adapter(path), {"unet": parts})
    except DiffusersRefusal:
        assert rule.right + rule.wrong == 0
    else:
        assert (loaded.worst_error < 1e-5) is (rule.right == rule.modules)


STRENGTHS = {  # of 42 layers, as the programs' own code was measured (rank 4, alpha 2)
    "diffusion_model., alpha": {"invokeai": 2.0, "comfyui": 1.0, "diffusers": 1.0, "cpp": 1.0},
    "transformer., settings": {"invokeai": 2.0, "comfyui": 2.0, "diffusers": 1.0, "cpp": 2.0},
    "OneTrainer": {"invokeai": 1.0, "comfyui": 1.0, "diffusers": 1.0, "cpp": 1.0},
}


@pytest.mark.parametrize("layout", STRENGTHS)
def test_the_rules_find_the_strengths_that_programs_were_measured_at(
    layout: str, adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors_of, header, _ = LAYOUTS[layout]
    proof = check_file(write(tmp_path / "a.safetensors", tensors_of(adapter), header), ZIMAGE)
    found = {result.name: result.strength for result in proof.loaders}
    assert found == pytest.approx(STRENGTHS[layout])


@pytest.mark.parametrize(
    ("layout", "read"),
    [
        ("kohya", {"comfyui": 12, "invokeai": 0, "cpp": 8, "diffusers": 28}),
        ("kohya, fused", {"comfyui": 28, "invokeai": 0, "cpp": 8, "diffusers": 28}),
        ("kohya, two underscores", {"comfyui": 0, "invokeai": 24, "cpp": 0, "diffusers": 0}),
        ("bare", {"comfyui": 28, "invokeai": 0, "cpp": 0, "diffusers": 0}),
        ("PEFT", {"comfyui": 0, "invokeai": 0, "cpp": 0, "diffusers": 0}),
        ("transformer., alpha", {"comfyui": 28, "invokeai": 0, "cpp": 28, "diffusers": 0}),
    ],
)
def test_the_rules_find_the_layers_that_programs_lose(
    layout: str, read: Mapping[str, int], adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors_of, header, _ = LAYOUTS[layout]
    proof = check_file(write(tmp_path / "a.safetensors", tensors_of(adapter), header), ZIMAGE)
    assert {result.name: result.right for result in proof.loaders} == read


def test_layers_that_are_missing_or_unknown_are_counted(
    large_adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors = dotted(large_adapter, "diffusion_model.")
    reading = read_with_notes(write(tmp_path / "a.safetensors", tensors))
    assert any("7 of 210 layers" in note for note in reading.notes)
    tensors["diffusion_model.layers.77.attention.to_q.lora_A.weight"] = torch.zeros(2, 2)
    with pytest.raises(AdapterError, match="1 of the file's 15 tensors"):
        read_layout(write(tmp_path / "b.safetensors", tensors))


def test_an_adapter_of_another_kind_of_base_is_named(large_adapter: LoraAdapter) -> None:
    sdxl = family_shapes(BaseFamily.SDXL)
    other = random_adapter(sdxl, choose=lambda key: key.endswith("blocks.1.attentions.0.proj_in"))
    reason = explain_mismatch(large_adapter, sdxl, base_name="“Comic”")
    assert reason is not None
    assert reason.startswith("This adapter was made for Z-Image; “Comic” is a base model of SDXL.")
    reason = explain_mismatch(other, family_shapes(ZIMAGE), base_name="“Base”")
    assert reason is not None
    assert "“Base” is a base model of Z-Image." in reason
    stack = [LoadedAdapter("a", large_adapter), LoadedAdapter("b", other)]
    with pytest.raises(ToolError, match="“a” is for Z-Image and “b” for "):
        merge_adapters(stack, MergeOptions())


def test_tools_work_as_for_other_families(adapter: LoraAdapter) -> None:
    stack = [LoadedAdapter("a", adapter), LoadedAdapter("b", adapter, weight=0.5)]
    merged = merge_adapters(stack, MergeOptions()).adapter
    torch.testing.assert_close(merged.modules[0].delta(), 1.5 * adapter.modules[0].delta())
    assert measure_overlap(*stack).cosine == pytest.approx(1.0)
    with one_thread():
        small = resize_adapter(adapter, ResizeOptions(rank=2)).adapter
    assert {module.rank for module in small.modules} == {2}
    scaled = scale_blocks(adapter, {Part.INPUT: 0.0}).adapter
    assert {key.split(".")[1] for m in scaled.modules if (key := m.key)} == {
        "noise_refiner",
        "context_refiner",
    }


def test_thirds_of_the_layers_are_the_parts() -> None:
    parts = [part_of(f"unet.layers.{number}.attention.to_q") for number in (0, 9, 10, 19, 20, 29)]
    assert parts == [Part.INPUT] * 2 + [Part.MIDDLE] * 2 + [Part.OUTPUT] * 2
    assert part_of("unet.noise_refiner.0.attention.to_q") is Part.OTHER
    keys = sorted(family_shapes(ZIMAGE), key=layer_order)
    numbers = [int(key.split(".")[2]) for key in keys if key.startswith("unet.layers.")]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 29
    assert keys[-1].startswith("unet.all_final_layer.")
