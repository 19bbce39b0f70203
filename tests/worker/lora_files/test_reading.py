"""Adapters in the namings of other programs are read with the right strength."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraModule
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.reading import read_adapter
from worker.core.lora_files.reading import read_with_notes as read_file

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
DOWN, UP = torch.randn(4, 8), torch.randn(6, 4)


def read(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> dict[str, LoraModule]:
    unshared = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(unshared, path / "a.safetensors", metadata)
    return {module.key: module for module in read_adapter(path / "a.safetensors").modules}


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{OUT}.lora_A.weight", f"unet.{OUT}.lora_B.weight"),
        (f"unet.{OUT}.lora.down.weight", f"unet.{OUT}.lora.up.weight"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
        ),
    ],
)
def test_all_three_namings_of_diffusers_are_read(down: str, up: str, tmp_path: Path) -> None:
    module = read(tmp_path, {down: DOWN, up: UP})[f"unet.{OUT}"]
    assert torch.equal(module.down, DOWN)
    assert torch.equal(module.up, UP)
    assert module.scale == 1.0  # no alpha anywhere means the rank


def test_an_encoder_without_its_wrapper_is_the_same_encoder(tmp_path: Path) -> None:
    layer = "encoder.layers.0.self_attn.k_proj"
    found = read(
        tmp_path,
        {
            f"text_encoder.{layer}.lora_linear_layer.down.weight": DOWN,
            f"text_encoder.{layer}.lora_linear_layer.up.weight": UP,
        },
    )
    assert found.keys() == {f"text_encoder.text_model.{layer}"}


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"unet.lora_alpha": 8}, 8.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 16.0),  # 8 / sqrt(4) = 16 / 4
        ({"text_encoder.lora_alpha": 8}, 4.0),
    ],
)
def test_alphas_of_peft_files_come_from_their_settings(
    settings: dict[str, object], alpha: float, tmp_path: Path
) -> None:
    tensors = {f"unet.{QUERY}.lora_A.weight": DOWN, f"unet.{QUERY}.lora_B.weight": UP}
    found = read(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(settings)})
    assert found[f"unet.{QUERY}"].alpha == alpha


@pytest.mark.parametrize("prefix", ["lora_te_", "lora_te1_"])
def test_both_prefixes_of_the_first_encoder_are_read(prefix: str, tmp_path: Path) -> None:
    stem = f"{prefix}text_model_encoder_layers_0_mlp_fc1"
    tensors = {
        f"{stem}.lora_down.weight": DOWN,
        f"{stem}.lora_up.weight": UP,
        f"{stem}.alpha": torch.tensor(2),  # some files have integers
    }
    (module,) = read(tmp_path, tensors).values()
    assert (module.component, module.path, module.alpha) == (
        Component.TEXT_ENCODER,
        "text_model.encoder.layers.0.mlp.fc1",
        2.0,
    )


@pytest.mark.parametrize("alpha", [0.0, 2.0, None])
def test_an_alpha_of_0_is_read_as_the_rank_with_a_note(alpha: float | None, tmp_path: Path) -> None:
    stem = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors = {f"{stem}.lora_down.weight": DOWN, f"{stem}.lora_up.weight": UP}
    if alpha is not None:
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "a.safetensors")
    found = read_file(tmp_path / "a.safetensors")
    assert found.adapter.modules[0].alpha == (alpha or 4.0)
    assert [note for note in found.notes if "Alpha is 0" in note] == (
        [
            "Alpha is 0 in 1 module and was read as the rank (strength 1), as in kohya. In most "
            "other programs, the original file has no effect there."
        ]
        if alpha == 0
        else []
    )
    assert not found.is_converted


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"unet.x.weight": DOWN}, "unknown name: 'unet.x.weight'"),
        (
            {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": DOWN},
            "incomplete: .* has no up",
        ),
        (
            {"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0)},
            "has no down and no up",
        ),
        ({"vae.x.lora_A.weight": DOWN, "vae.x.lora_B.weight": UP}, "unknown name"),
        (
            {
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN,
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN,
            },
            "twice",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    tensors: dict[str, Tensor], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=sentence):
        read(tmp_path, tensors)


def test_damaged_settings_are_a_sentence(tmp_path: Path) -> None:
    tensors = {f"unet.{QUERY}.lora_A.weight": DOWN, f"unet.{QUERY}.lora_B.weight": UP}
    with pytest.raises(AdapterError, match="header are damaged"):
        read(tmp_path, tensors, {"lora_adapter_metadata": "{"})
