"""Converted files, loaded by diffusers, have the effect that the original defines."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.worker.lora_files.corpus import LDM
from worker.core.lora_files.converting import convert
from worker.core.lora_files.errors import AdapterError
from worker.core.safetensors_header import read_header
from worker.core.words import FileFormat, WeightDtype

LAYERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (32, 32),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v": (64, 64),
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2": (32, 128),
    "up_blocks.1.resnets.0.conv2": (64, 64, 3, 3),
}
Original = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def pipeline(sd15_folder: Path) -> StableDiffusionPipeline:
    """A complete pipeline of a tiny base, built by diffusers."""
    return StableDiffusionPipeline.from_pretrained(
        sd15_folder, safety_checker=None, local_files_only=True
    )


def original(kind: str) -> Original:
    """(tensors of a file of this type, full change by layer) by the definitions of LyCORIS."""
    generator = torch.Generator().manual_seed(9)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 4

    tensors, changes = {}, {}
    for number, (layer, shape) in enumerate(LAYERS.items()):
        stem, (out, *rest) = f"lora_unet_{layer.replace('.', '_')}", shape
        given = torch.Size(rest).numel()
        rank, alpha = 2 + number % 2, 1.0 + number  # ranks and strengths differ between layers
        if kind == "lora":
            kernel = [1] * (len(rest) - 1)
            parts = {
                "lora_down.weight": some(rank, *rest),
                "lora_up.weight": some(out, rank, *kernel),
            }
            product = parts["lora_up.weight"].flatten(1) @ parts["lora_down.weight"].flatten(1)
        elif kind == "loha":
            names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
            shapes = ((out, rank), (rank, given), (out, rank), (rank, given))
            parts = {name: some(*size) for name, size in zip(names, shapes, strict=True)}
            one, two = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
            product = one * two
        else:
            parts = {
                "lokr_w1": some(4, 2), "lokr_w2_a": some(out // 4, rank),
                "lokr_w2_b": some(rank, given // 2),
            }  # fmt: skip
            product = torch.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"])
        tensors |= {f"{stem}.{name}": tensor for name, tensor in parts.items()}
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        changes[layer] = (product * alpha / rank).reshape(shape)
    return tensors, changes


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
@pytest.mark.parametrize("format", [FileFormat.KOHYA, FileFormat.PEFT])
def test_diffusers_changes_its_weights_as_the_original_defines(
    kind: str, format: FileFormat, pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    tensors, changes = original(kind)
    save_file(tensors, tmp_path / "in.safetensors")
    convert(
        tmp_path / "in.safetensors",
        tmp_path / "out.safetensors",
        format=format,
        dtype=WeightDtype.FP32,
    )
    before = copy.deepcopy(dict(pipeline.unet.state_dict()))
    pipeline.load_lora_weights(tmp_path, weight_name="out.safetensors", use_safetensors=True)
    try:
        pipeline.fuse_lora()
        changed = {}
        for layer in LAYERS:
            module = pipeline.unet.get_submodule(layer)
            changed[layer] = module.base_layer.weight.detach() - before[f"{layer}.weight"]
    finally:
        pipeline.unfuse_lora()
        pipeline.unload_lora_weights()
    for layer, expected in changes.items():
        error = (changed[layer] - expected).norm() / expected.norm()
        assert error < 1e-5, layer


def test_both_block_namings_of_sdxl_in_one_file_become_one(tmp_path: Path) -> None:
    block = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2"
    tensors = {}
    for stem, (out, given) in {
        f"{block}_to_k": (640, 2048),
        LDM.replace("1_1_transformer", "4_1_transformer").replace("attn1_to_k", "attn2_to_v"): (
            640,
            2048,
        ),
    }.items():
        tensors[f"{stem}.lora_down.weight"] = torch.randn(4, given)
        tensors[f"{stem}.lora_up.weight"] = torch.randn(out, 4)
    save_file(tensors, tmp_path / "mixed")
    notes = convert(
        tmp_path / "mixed", tmp_path / "out", format=FileFormat.KOHYA, dtype=WeightDtype.FP16
    )
    stems = {name.partition(".")[0] for name in load_file(tmp_path / "out")}
    prefix = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2"
    assert stems == {f"{prefix}_to_k", f"{prefix}_to_v"}
    assert read_header(tmp_path / "out").metadata["ss_base_model_version"].startswith("sdxl_")
    assert notes == ()


def test_the_metadata_of_the_original_goes_along_without_what_is_private(tmp_path: Path) -> None:
    tensors, _ = original("lora")
    metadata = {
        "modelspec.title": "Ink",
        "modelspec.trigger_phrase": "ink wash",
        "modelspec.license": "CC0-1.0",
        "ss_tag_frequency": '{"/home/ann/secret": {"my dog": 3}}',
    }
    save_file(tensors, tmp_path / "in", metadata)
    target = tmp_path / "ink.safetensors"
    convert(tmp_path / "in", target, format=FileFormat.KOHYA, dtype=WeightDtype.BF16)
    found = read_header(target).metadata
    assert (found["modelspec.title"], found["modelspec.license"]) == ("Ink", "CC0-1.0")
    assert found["modelspec.trigger_phrase"] == "ink wash"
    assert b"secret" not in target.read_bytes()


def test_a_file_that_is_not_read_writes_nothing(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "in")
    with pytest.raises(AdapterError, match="unknown name: 'x'"):
        convert(tmp_path / "in", tmp_path / "out", format=FileFormat.KOHYA, dtype=WeightDtype.FP16)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
