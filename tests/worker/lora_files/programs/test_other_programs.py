"""Layouts of programs that cannot be installed here, rewritten from their own code.

ComfyUI (`comfy_extras/nodes_train.py`, `comfy/weight_adapter/lora.py`): TrainLora writes the paths
of its own model, flat `lora_down`s of convolutions, and a difference for every norm and bias.
OneTrainer (`modules/util/convert/lora/convert_sdxl_lora.py`): its OMI names are LDM paths below
`unet`, `clip_l` and `clip_g`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.families.stable_diffusion.names import to_ldm
from worker.core.lora_files.converting import convert
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.reading import read_with_notes
from worker.core.words import FileFormat, WeightDtype

RANK = 4
SD1_LDM = {
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    ),
    "conv_in": "input_blocks.0.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
}
NORMS = ("input_blocks.1.0.in_layers.0", "out.0")


def flat_pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    out, *given = shape
    return torch.randn(RANK, torch.Size(given).numel()), torch.randn(out, RANK)


def comfy_file() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(TrainLora's tensors for SD 1.5, the change of every layer)."""
    tensors, changes = {}, {}
    for path, ldm in SD1_LDM.items():
        shape = family_shapes(BaseFamily.SD1)[f"unet.{path}"]
        down, up = flat_pair(shape)
        stem = f"diffusion_model.{ldm}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors |= {f"{stem}.alpha": torch.tensor(2.0)}
        if "attn2" not in path:
            tensors[f"{stem}.diff_b"] = torch.randn(shape[0]) / 100
        changes[f"unet.{path}"] = (up @ down).reshape(shape) * 2 / RANK
    for ldm in NORMS:
        tensors[f"diffusion_model.{ldm}.diff"] = torch.randn(320) / 100
        tensors[f"diffusion_model.{ldm}.diff_b"] = torch.randn(320) / 100
    encoder = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    down, up = flat_pair((768, 768))
    tensors |= {f"{encoder}.lora_down.weight": down, f"{encoder}.lora_up.weight": up}
    changes["text_encoder.text_model.encoder.layers.0.self_attn.q_proj"] = up @ down
    return tensors, changes


def check_changes(path: Path, changes: Mapping[str, Tensor]) -> None:
    found = {module.key: module.delta() for module in read_with_notes(path).adapter.modules}
    assert found.keys() == changes.keys()
    for key, change in changes.items():
        assert found[key].shape == change.shape
        assert float((found[key] - change).norm() / change.norm()) < 1e-5


def test_flat_convolutions_of_comfyui_get_the_kernels_of_the_base(tmp_path: Path) -> None:
    tensors, changes = comfy_file()
    save_file(tensors, tmp_path / "comfy.safetensors")
    check_changes(tmp_path / "comfy.safetensors", changes)
    for format in (FileFormat.KOHYA, FileFormat.PEFT):
        target = tmp_path / f"{format}.safetensors"
        notes = convert(
            tmp_path / "comfy.safetensors", target, format=format, dtype=WeightDtype.FP32
        )
        assert any("biases were left out" in note for note in notes)
        check_changes(target, changes)
    kohya = load_file(tmp_path / "kohya.safetensors")
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert kohya[f"{stem}.lora_down.weight"].shape == (RANK, 320, 3, 3)
    assert kohya[f"{stem}.lora_up.weight"].shape == (320, RANK, 1, 1)


def test_text_projections_of_comfyui_are_left_out_with_a_note(tmp_path: Path) -> None:
    tensors, changes = comfy_file()
    for leaf, tensor in zip(("lora_down", "lora_up"), flat_pair((768, 768)), strict=True):
        tensors[f"text_encoders.clip_l.transformer.text_projection.{leaf}.weight"] = tensor / 100
    save_file(tensors, tmp_path / "comfy.safetensors")
    check_changes(tmp_path / "comfy.safetensors", changes)
    notes = read_with_notes(tmp_path / "comfy.safetensors").notes
    assert any(note.startswith("Changes of 1 text projection were left out") for note in notes)


def test_a_file_of_text_projections_alone_is_refused(tmp_path: Path) -> None:
    stem = "lora_te2_text_projection"
    down, up = flat_pair((1280, 1280))
    save_file(
        {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, tmp_path / "x.safetensors"
    )
    with pytest.raises(AdapterError, match="contains no LoRA modules"):
        read_with_notes(tmp_path / "x.safetensors")


def test_omi_names_of_onetrainer_are_those_of_sdxl(tmp_path: Path) -> None:
    shapes = family_shapes(BaseFamily.SDXL)
    layer = "text_model.encoder.layers.0.self_attn.k_proj"
    paths = (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        "unet.down_blocks.0.resnets.0.conv1",
        "unet.time_embedding.linear_1",
        "unet.add_embedding.linear_2",
        "unet.conv_out",
        f"text_encoder.{layer}",
        f"text_encoder_2.{layer}",
    )
    prefixes = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    tensors, changes = {}, {}
    for key in paths:
        component, _, path = key.partition(".")
        name = to_ldm(path) if component == "unet" else path
        stem = f"{prefixes.get(component, component)}.{name}"
        out, given, *kernel = shapes[key]
        down = torch.randn(RANK, given, *kernel)
        up = torch.randn(out, RANK, *[1] * len(kernel))
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors |= {f"{stem}.alpha": torch.tensor(2.0)}
        changes[key] = (up.flatten(1) @ down.flatten(1)).reshape(shapes[key]) * 2 / RANK
    tensors["bundle_emb.ink.string_to_params"] = torch.randn(2, 768)
    save_file(tensors, tmp_path / "omi.safetensors")
    check_changes(tmp_path / "omi.safetensors", changes)
