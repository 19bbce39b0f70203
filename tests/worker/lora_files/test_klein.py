"""Adapters for FLUX.2 klein in the layouts of every program: read as trained, written for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.worker.bases.tiny_klein import klein_transformer
from tests.worker.lora_files.layouts import (
    NEW_LEAVES,
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
from worker.core.families.klein.names import original_layer
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.compatible import adaptable_layers, explain_mismatch, layer_weight
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import export
from worker.core.lora_files.file_family import find_family
from worker.core.lora_files.file_layout import read_layout
from worker.core.lora_files.inspecting import inspect_file
from worker.core.lora_files.parts import Part, layer_order, part_of
from worker.core.lora_files.proof.foreign import check_file
from worker.core.lora_files.proof.loading import (
    DiffusersRefusal,
    load_with_diffusers,
    measure_loaded_adapter,
)
from worker.core.lora_files.proof.result import Verdict
from worker.core.lora_files.reading import read_adapter, read_with_notes
from worker.core.words import FileFormat, WeightDtype

KLEIN = BaseFamily.KLEIN
RANK, ALPHA = 4, 2.0
PROGRAMS = ("comfyui", "invokeai", "cpp", "diffusers")


def in_a_block(key: str) -> bool:
    return "transformer_blocks." in key


def in_first_blocks(key: str) -> bool:
    return "transformer_blocks.0." in key


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    torch.manual_seed(0)
    return klein_transformer()


@pytest.fixture(scope="module")
def adapter(transformer: nn.Module) -> LoraAdapter:
    shapes = {
        f"unet.{path}": tuple(layer_weight(layer).shape)
        for path, layer in adaptable_layers("unet", transformer).items()
    }
    return random_adapter(shapes, rank=RANK, alpha=ALPHA, choose=in_a_block)


@pytest.fixture(scope="module")
def large_adapter() -> LoraAdapter:
    """One block of each kind in the published size."""
    return random_adapter(family_shapes(KLEIN), rank=2, alpha=1.0, choose=in_first_blocks)


def own(path: str) -> str:
    return original_layer(path)[0]


def comfy_name(path: str) -> str:
    return f"diffusion_model.{path}"


def with_alphas(tensors: Tensors) -> Tensors:
    """Alphas beside lora_A and lora_B, at half the rank."""
    down = ".lora_A.weight"
    alphas = {
        name.removesuffix(down) + ".alpha": torch.tensor(tensor.shape[0] / 2)
        for name, tensor in tensors.items()
        if name.endswith(down)
    }
    return tensors | alphas


def original(adapter: LoraAdapter) -> Tensors:
    return fused(adapter, own, comfy_name, NEW_LEAVES)


# each with its strength and, as the programs' own code was measured, the layers that they find
LAYOUTS: dict[str, tuple[Callable[[LoraAdapter], Tensors], float, tuple[int, int, int, int]]] = {
    "diffusion_model., original": (original, 1.0, (16, 16, 16, 16)),
    "diffusion_model., original, alpha": (lambda a: with_alphas(original(a)), 0.5, (16, 0, 16, 0)),
    "kohya, original": (lambda a: fused(a, own, kohya_name), 0.5, (16, 16, 16, 16)),
    "transformer.": (lambda a: dotted(a, "transformer."), 1.0, (16, 16, 8, 16)),
    "transformer., alpha": (lambda a: dotted(a, "transformer.", alpha=True), 0.5, (16, 0, 8, 0)),
    "diffusion_model.": (lambda a: dotted(a, "diffusion_model."), 1.0, (0, 0, 8, 16)),
    "bare": (lambda a: dotted(a, ""), 1.0, (16, 16, 8, 0)),
    "kohya": (lambda a: with_old_leaves(a, "lora_unet_", flat=True), 0.5, (0, 0, 8, 0)),
    "OneTrainer": (
        lambda a: with_old_leaves(a, "lora_transformer_", flat=True),
        0.5,
        (16, 0, 0, 0),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_at_its_strength_and_the_rules_say_who_else_does(
    layout: str, adapter: LoraAdapter, transformer: nn.Module, tmp_path: Path
) -> None:
    tensors_of, strength, counts = LAYOUTS[layout]
    path = write(tmp_path / "a.safetensors", tensors_of(adapter))
    found = read_adapter(path)
    expected = {module.key: module.delta() for module in adapter.modules}
    assert {module.key for module in found.modules} == expected.keys()
    for module in found.modules:
        assert module.rank == RANK  # also of a layer that was one with others
        torch.testing.assert_close(module.delta(), strength / 0.5 * expected[module.key])
    loaders = check_file(path, KLEIN).loaders
    assert {r.name: r.right for r in loaders} == dict(zip(PROGRAMS, counts, strict=True))
    try:
        with load_with_diffusers(path, {"unet": transformer}, KLEIN):
            loaded = measure_loaded_adapter(found, {"unet": transformer})
    except DiffusersRefusal:
        assert counts[-1] == 0
    else:
        assert (loaded.worst_error < 1e-5) is (counts[-1] == 16)


@pytest.mark.parametrize("format", [FileFormat.KOHYA, FileFormat.PEFT])
def test_diffusers_loads_a_download_at_full_strength(
    format: FileFormat, adapter: LoraAdapter, transformer: nn.Module, tmp_path: Path
) -> None:
    path, parts = tmp_path / "out.safetensors", {"unet": transformer}
    about = metadata(family=KLEIN)
    proof = export(adapter, path, format=format, dtype=WeightDtype.FP32, metadata=about)
    assert proof.passed
    with load_with_diffusers(path, parts, KLEIN):
        loaded = measure_loaded_adapter(adapter, parts)
    assert loaded.worst_error < 1e-6
    half = replace(adapter, modules=tuple(replace(m, alpha=m.alpha / 2) for m in adapter.modules))
    with load_with_diffusers(path, parts, KLEIN):
        assert measure_loaded_adapter(half, parts).worst_error > 0.9


def test_a_download_is_read_by_every_program(large_adapter: LoraAdapter, tmp_path: Path) -> None:
    path, about = tmp_path / "out.safetensors", metadata(family=KLEIN)
    options = {"dtype": WeightDtype.BF16, "metadata": about}
    proof = export(large_adapter, path, format=FileFormat.KOHYA, **options)
    programs = {result.name: result.verdict for result in proof.loaders}
    assert programs == dict.fromkeys(PROGRAMS, Verdict.RIGHT)
    with safe_open(path, "pt") as file:
        names, header = list(file.keys()), file.metadata()
        up = file.get_tensor("diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight")
    assert up.shape == (3 * 3072, 3 * 2)
    assert not up[:3072, 2:].any()
    assert up[3072:6144, 2:4].any()
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert header["modelspec.architecture"] == "flux-2-klein-4b/lora"
    assert "lora_adapter_metadata" not in header
    assert find_family(read_layout(path)) == (KLEIN, [])
    again = tmp_path / "peft.safetensors"
    proof = export(large_adapter, again, format=FileFormat.PEFT, **options)
    peft = {result.name: result.verdict for result in proof.loaders}
    assert peft == programs | {"cpp": Verdict.PARTLY}


def test_without_feed_forward_invokeai_takes_a_file_for_flux_1(
    large_adapter: LoraAdapter, tmp_path: Path
) -> None:
    attention = [m for m in large_adapter.modules if ".ff" not in m.path]
    narrow = replace(large_adapter, modules=tuple(attention))
    path, about = tmp_path / "out.safetensors", metadata(family=KLEIN)
    proof = export(narrow, path, format=FileFormat.KOHYA, dtype=WeightDtype.BF16, metadata=about)
    invoke = next(result for result in proof.loaders if result.name == "invokeai")
    assert (invoke.verdict, invoke.seen_as) == (Verdict.WRONG, "FLUX.1")
    assert "mistaken for FLUX.1" in invoke.sentence


def test_what_is_one_layer_in_files_is_written_whole(
    adapter: LoraAdapter, transformer: nn.Module, tmp_path: Path
) -> None:
    """A file of another program may change queries alone, or read the input alike for all."""
    path, about = tmp_path / "out.safetensors", metadata(family=KLEIN)
    query = [m for m in adapter.modules if m.path.endswith("attn.to_q")]
    alike = [replace(m, down=query[0].down) for m in adapter.modules if ".add_" in m.path]
    made = replace(adapter, modules=tuple(query + alike))
    proof = export(made, path, format=FileFormat.KOHYA, dtype=WeightDtype.FP32, metadata=about)
    assert proof.passed
    with safe_open(path, "pt") as file:
        ranks = {
            name: file.get_tensor(name).shape[0] for name in list(file.keys()) if "lora_A" in name
        }
    block = "diffusion_model.double_blocks.0."
    assert ranks[f"{block}txt_attn.qkv.lora_A.weight"] == RANK
    assert ranks[f"{block}img_attn.qkv.lora_A.weight"] == RANK + 2
    found = {m.path: m for m in read_adapter(path).modules}
    torch.testing.assert_close(found[query[0].path].delta(), query[0].delta())
    assert not found["transformer_blocks.0.attn.to_k"].up.any()


def test_layers_that_are_missing_or_unknown_are_counted(
    large_adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors = original(large_adapter)
    path = write(tmp_path / "a.safetensors", tensors)
    reading = read_with_notes(path)
    assert any("14 of 100 layers" in note for note in reading.notes)
    inspection = inspect_file(path)
    assert inspection.bases == (KLEIN.label,)
    assert inspection.targets == {"attention": 10, "feed-forward": 4}
    assert [block.name for block in inspection.blocks] == [
        "unet.transformer_blocks.0",
        "unet.single_transformer_blocks.0",
    ]
    tensors["diffusion_model.double_blocks.0.img_attn.norm.lora_A.weight"] = torch.zeros(2, 3072)
    with pytest.raises(AdapterError, match="1 of the file's 21 tensors has an unknown name"):
        read_layout(write(tmp_path / "b.safetensors", tensors))


def test_names_that_two_families_have_are_read_by_the_rest_of_the_file(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors = dotted(adapter, "transformer.")
    tensors |= {
        "transformer.x_embedder.lora_A.weight": torch.zeros(2, 16),
        "transformer.x_embedder.lora_B.weight": torch.zeros(32, 2),
    }
    found = read_adapter(write(tmp_path / "a.safetensors", tensors))
    assert "unet.x_embedder" in {module.key for module in found.modules}


DOUBLE, SINGLE = "diffusion_model.double_blocks", "diffusion_model.single_blocks"


@pytest.mark.parametrize(
    ("name", "down", "up", "model"),
    [
        (f"{DOUBLE}.5.img_attn.proj", 3072, 3072, "FLUX.1"),
        (f"{SINGLE}.20.linear1", 3072, 21504, "FLUX.1"),
        (f"{SINGLE}.0.linear2", 15360, 3072, "FLUX.1"),
        (f"{DOUBLE}.0.img_mlp.0", 3072, 12288, "FLUX.1"),
        (f"{DOUBLE}.0.img_mod.lin", 3072, 18432, "FLUX.1"),
        ("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072, "FLUX.1"),
        ("transformer.single_transformer_blocks.0.proj_mlp", 3072, 12288, "FLUX.1"),
        (f"{DOUBLE}.7.img_attn.proj", 4096, 4096, r"FLUX\.2 klein 9B"),
        (f"{SINGLE}.0.linear1", 6144, 55296, r"FLUX\.2 dev"),
    ],
)
def test_an_adapter_of_another_flux_is_named(
    name: str, down: int, up: int, model: str, tmp_path: Path
) -> None:
    kohya = "lora_unet_" + name.partition(".")[2].replace(".", "_")
    for stem, leaves in ((name, NEW_LEAVES), (kohya, ("lora_down.weight", "lora_up.weight"))):
        tensors: Mapping[str, torch.Tensor] = {
            f"{stem}.{leaves[0]}": torch.zeros(1, down),
            f"{stem}.{leaves[1]}": torch.zeros(up, 1),
        }
        with pytest.raises(AdapterError, match=f"This adapter is for {model}, which is not supp"):
            read_layout(write(tmp_path / "a.safetensors", dict(tensors)))


def test_an_adapter_of_another_kind_of_base_is_named(large_adapter: LoraAdapter) -> None:
    for other in (BaseFamily.SDXL, BaseFamily.ZIMAGE):
        reason = explain_mismatch(large_adapter, family_shapes(other), base_name="“Comic”")
        assert reason is not None
        assert f"made for FLUX.2 klein; “Comic” is a base model of {other.label}." in reason


def test_double_and_single_blocks_are_one_row() -> None:
    double = [part_of(f"unet.transformer_blocks.{number}.attn.to_q") for number in (0, 4)]
    single = [
        part_of(f"unet.single_transformer_blocks.{number}.attn.to_out") for number in (3, 4, 11, 12)
    ]
    assert double == [Part.INPUT] * 2
    assert single == [Part.INPUT, Part.MIDDLE, Part.MIDDLE, Part.OUTPUT]
    assert part_of("unet.x_embedder") is Part.OTHER
    keys = sorted(family_shapes(KLEIN), key=layer_order)
    blocks = [key.split(".")[1:3] for key in keys if in_a_block(key)]
    assert blocks == sorted(blocks, key=lambda block: (block[0].startswith("s"), int(block[1])))
    assert keys[-1] == "unet.proj_out"
