"""Files that peft writes are read with the weight change that peft itself applies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.worker.lora_files.programs.networks import (
    ATTENTION,
    CONVOLUTIONS,
    LAYERS,
    LINEAR,
    largest_error,
    randomize,
    read,
    tiny_unet,
)
from worker.core.lora_files.peft_settings import PatternTable

EXACT = 1e-5


def trained(config: Any, name: str = "default") -> PeftModel:
    model = get_peft_model(tiny_unet(), config, adapter_name=name)
    randomize(p for n, p in model.named_parameters() if "lora_" in n or "hada" in n or "lokr" in n)
    return model


def meant_by(model: PeftModel, name: str = "default") -> dict[str, Tensor]:
    """The change of every layer by peft's own functions."""
    return {
        path: layer.get_delta_weight(name).detach()
        for path, layer in model.base_model.model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


def saved(model: PeftModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / "adapter_model.safetensors"


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=16, target_modules=list(LINEAR)),
        LoraConfig(r=4, lora_alpha=16, target_modules=list(LAYERS)),
        LoraConfig(r=4, lora_alpha=16, use_rslora=True, target_modules=list(LINEAR)),
        LoraConfig(
            r=4,
            lora_alpha=4,
            target_modules=list(LAYERS),
            alpha_pattern={r"attn1\.to_[qk]": 32, "^down_blocks.0.resnets.0.conv1": 1},
            rank_pattern={r".*\.to_(k|v)": 2, "proj_in": 8},
        ),
        LoHaConfig(r=2, alpha=6, target_modules=list(LAYERS)),
        LoHaConfig(
            r=2,
            alpha=2,
            target_modules=list(LAYERS),
            use_effective_conv2d=True,
            alpha_pattern={"conv1|conv": 8},
        ),
        LoKrConfig(r=2, alpha=6, target_modules=list(LAYERS)),
        LoKrConfig(r=2, alpha=6, decompose_both=True, target_modules=list(LINEAR)),
        LoKrConfig(r=64, alpha=16, target_modules=list(LINEAR)),  # full matrices
        LoKrConfig(r=2, alpha=2, use_effective_conv2d=True, target_modules=list(CONVOLUTIONS)),
    ],
    ids=lambda config: f"{config.peft_type.value}-{config.r}",
)
@pytest.mark.filterwarnings("ignore:Using `rank_pattern`")
def test_a_saved_adapter_has_the_effect_that_peft_gives_it(config: Any, tmp_path: Path) -> None:
    model = trained(config)
    found = read(saved(model, tmp_path))
    assert largest_error(found, meant_by(model)) < EXACT


def test_without_its_config_the_strength_is_assumed_with_a_note(tmp_path: Path) -> None:
    model = trained(LoraConfig(r=4, lora_alpha=16, target_modules=list(LINEAR)))
    path = saved(model, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    found = read(path)
    assert largest_error(found, {p: d / 4 for p, d in meant_by(model).items()}) < EXACT
    assert "adapter_config.json" in " ".join(found.notes)


def test_a_dora_has_the_effect_that_peft_gives_it(tmp_path: Path) -> None:
    model = trained(LoraConfig(r=4, lora_alpha=16, use_dora=True, target_modules=list(LAYERS)))
    path = saved(model, tmp_path)
    base = tiny_unet()
    before = {n: layer.weight.detach().clone() for n, layer in named_layers(base).items()}
    merged = named_layers(model.merge_and_unload())
    meant = {n: merged[n].weight.detach() - weight for n, weight in before.items()}
    assert largest_error(read(path, network=base), meant) < 1e-4  # dense, in fp32


def named_layers(network: torch.nn.Module) -> dict[str, Any]:
    return {n: layer for n, layer in network.named_modules() if n in LAYERS}


@pytest.mark.parametrize("name", ["default", "ink", "style_2"])
def test_a_state_dict_with_the_name_of_its_adapter_is_read(name: str, tmp_path: Path) -> None:
    model = trained(LoraConfig(r=4, lora_alpha=16, target_modules=list(LINEAR)), name)
    raw = {n: t.clone() for n, t in model.state_dict().items() if "lora_" in n}
    assert all(f".{name}." in key for key in raw)
    save_file(raw, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(model.peft_config[name].to_dict(), default=str)
    )
    assert (
        largest_error(read(tmp_path / "adapter_model.safetensors"), meant_by(model, name)) < EXACT
    )


@pytest.mark.parametrize("prefix", ["unet.base_model.model.", "base_model.model.unet."])
def test_the_wrapper_of_peft_is_read_before_and_after_the_component(
    prefix: str, tmp_path: Path
) -> None:
    model = trained(LoraConfig(r=4, lora_alpha=16, target_modules=list(LINEAR)))
    saved(model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({n.replace("base_model.model.", prefix): t for n, t in tensors.items()}, path)
    assert largest_error(read(path), meant_by(model)) < EXACT


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # peft expects no biases there
def test_a_bias_of_lora_b_is_left_out_and_measured(tmp_path: Path) -> None:
    model = trained(LoraConfig(r=4, lora_alpha=4, lora_bias=True, target_modules=list(LINEAR)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B.default.bias"):
                parameter.mul_(1e-2)
    found = read(saved(model, tmp_path))
    assert largest_error(found, meant_by(model)) < EXACT
    (note,) = found.notes
    assert note.startswith("Changes of 5 biases were left out")


def test_an_encoder_by_peft_is_the_first_or_by_its_width_the_second(tmp_path: Path) -> None:
    for width, component in ((768, "text_encoder"), (1280, "text_encoder_2")):
        stem = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
        tensors = {
            f"{stem}.lora_A.weight": torch.randn(2, width),
            f"{stem}.lora_B.weight": torch.randn(width, 2),
        }
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        (module,) = read(tmp_path / "adapter_model.safetensors").adapter.modules
        assert module.component == component


@pytest.mark.parametrize(
    "patterns",
    [
        ["to_q", "to_k"],
        [r"attn[12]\.to_.*", "to_q"],
        [f"^{ATTENTION}.attn1.to_q"],
        ["attn1", "o_q", "down_blocks"],
        ["to_q|to_k", "(a|b)?", "to_out.0"],
        [r"(\w+\.)*?attn[^2].*to_\w", r"\w+\.net\.2", "net..", "[a-z]{2}_v"],
    ],
)
def test_patterns_are_matched_as_peft_matches_them(patterns: list[str]) -> None:
    table = PatternTable("alpha_pattern", {p: float(i) for i, p in enumerate(patterns)})
    for layer in LAYERS:
        found = get_pattern_key(patterns, layer)
        assert table.find([layer]) == (patterns.index(found) if found in patterns else None)
