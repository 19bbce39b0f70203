"""`adapters check` says of files of other programs what these programs were seen to do with them.

Each layout is one that was loaded by the programs' own code; `check` had said something else.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.proof.foreign import check_file
from worker.core.lora_files.proof.result import LoaderResult, Proof

SD1, SDXL = BaseFamily.SD1, BaseFamily.SDXL
BLOCK = "down_blocks.0.attentions.0"
QUERY = f"{BLOCK}.transformer_blocks.0.attn1.to_q"
KEY = f"{BLOCK}.transformer_blocks.0.attn2.to_k"
SDXL_KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
RESHAPING = {"comfyui", "a1111", "forge", "invokeai", "cpp"}


def pair(
    stem: str, shape: tuple[int, ...], leaves: tuple[str, str] = (".lora_down", ".lora_up")
) -> dict[str, Tensor]:
    """A LoRA of rank 2 for a weight of this shape."""
    out, *given = shape
    return {
        f"{stem}{leaves[0]}.weight": torch.randn(2, *given),
        f"{stem}{leaves[1]}.weight": torch.randn(out, 2, *[1] * (len(given) - 1)),
    }


def kohya(path: str, family: BaseFamily = SD1, prefix: str = "lora_unet_") -> dict[str, Tensor]:
    component = {"lora_te2_": "text_encoder_2", "lora_unet_": "unet"}.get(prefix, "text_encoder")
    shape = family_shapes(family)[f"{component}.{path}"]
    return pair(prefix + path.replace(".", "_"), shape)


def checked(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> tuple[Proof, dict[str, LoaderResult]]:
    save_file(tensors, tmp_path / "file.safetensors", metadata)
    proof = check_file(tmp_path / "file.safetensors")
    return proof, {result.name: result for result in proof.loaders}


def good(found: dict[str, LoaderResult]) -> set[str]:
    return {name for name, result in found.items() if result.verdict.is_good}


@pytest.mark.parametrize("leaf", ["w_norm", "b_norm", "diff_b"])
def test_a_locon_with_trained_norms_is_refused_by_diffusers(leaf: str, tmp_path: Path) -> None:
    stem = "lora_unet_down_blocks_0_resnets_0_norm1"
    if leaf == "diff_b":
        stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    norm = {f"{stem}.{leaf}": torch.randn(320) / 1000}
    proof, found = checked(tmp_path, kohya(KEY) | kohya("down_blocks.0.resnets.0.conv1") | norm)
    assert good(found) == found.keys() - {"diffusers"}
    assert leaf in found["diffusers"].sentence
    assert not proof.passed
    assert (found["comfyui"].used, found["kohya"].used) == (5, 4)


def test_a_flat_proj_in_of_sd_is_right_where_it_is_reshaped(tmp_path: Path) -> None:
    proof, found = checked(
        tmp_path, kohya(KEY) | pair(f"lora_unet_{BLOCK}_proj_in".replace(".", "_"), (320, 320))
    )
    assert good(found) == RESHAPING
    assert "rejected" in found["kohya"].sentence
    assert "rejected" in found["diffusers"].sentence
    assert not proof.passed


def test_the_names_of_comfyuis_own_encoder_are_right_in_comfyui(tmp_path: Path) -> None:
    encoder = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    unet = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    proof, found = checked(tmp_path, pair(encoder, (768, 768)) | pair(unet, (320, 768)))
    assert found["comfyui"].verdict == "right"
    assert found["forge"].verdict == "partly"  # an older copy of ComfyUI's map
    assert found["diffusers"].verdict == "unread"
    assert proof.passed  # the names are those of ComfyUI


@pytest.mark.parametrize(("prefix", "verdict"), [("unet.", "right"), ("", "unread")])
def test_old_attention_processors_are_read_by_diffusers_with_their_prefix(
    prefix: str, verdict: str, tmp_path: Path
) -> None:
    tensors: dict[str, Tensor] = {}
    for name in ("to_q", "to_k", "to_v", "to_out"):
        stem = f"{prefix}{BLOCK}.transformer_blocks.0.attn2.processor.{name}"
        tensors |= pair(
            stem, (320, 768 if name in ("to_k", "to_v") else 320), ("_lora.down", "_lora.up")
        )
    proof, found = checked(tmp_path, tensors)
    assert found["diffusers"].verdict == verdict
    assert proof.passed is (verdict == "right")
    assert found["comfyui"].verdict == "right"


@pytest.mark.parametrize("number", [1, 2])
def test_a_size_embedding_by_diffusers_name_is_lost_in_diffusers(
    number: int, tmp_path: Path
) -> None:
    tensors = kohya(SDXL_KEY, SDXL) | kohya(f"add_embedding.linear_{number}", SDXL)
    proof, found = checked(tmp_path, tensors)
    assert (found["diffusers"].verdict, found["diffusers"].missed) == ("partly", 1)
    assert not proof.passed
    ldm = kohya(SDXL_KEY, SDXL) | {
        name.replace(f"add_embedding_linear_{number}", f"label_emb_0_{2 * number - 2}"): tensor
        for name, tensor in kohya(f"add_embedding.linear_{number}", SDXL).items()
    }
    assert checked(tmp_path, ldm)[1]["diffusers"].verdict == "right"


def test_a_second_encoder_with_only_q_and_v_is_dropped_by_a1111(tmp_path: Path) -> None:
    tensors = kohya(SDXL_KEY, SDXL)
    for name in ("q_proj", "v_proj"):
        tensors |= kohya(f"text_model.encoder.layers.0.self_attn.{name}", SDXL, "lora_te2_")
    proof, found = checked(tmp_path, tensors)
    assert (found["a1111"].verdict, found["a1111"].missed) == ("partly", 2)
    assert "only used together" in found["a1111"].sentence
    assert found["diffusers"].verdict == "unread"
    assert "without any out_proj" in found["diffusers"].sentence
    assert not proof.passed
    assert len(proof.failures) == 2


def test_an_sd_encoder_with_only_q_and_v_fails_as_its_own_line_says(tmp_path: Path) -> None:
    tensors = kohya(KEY)
    for name in ("q_proj", "v_proj"):
        tensors |= kohya(f"text_model.encoder.layers.0.self_attn.{name}", SD1, "lora_te_")
    proof, found = checked(tmp_path, tensors)
    assert good(found) == found.keys() - {"diffusers"}
    assert not proof.passed


def test_lycoris_own_prefix_is_read_by_comfyui(tmp_path: Path) -> None:
    proof, found = checked(tmp_path, pair("lycoris_" + KEY.replace(".", "_"), (320, 768)))
    assert found["comfyui"].verdict == "right"
    assert found["forge"].verdict == "unread"
    assert proof.passed


def test_a_rank_that_the_settings_contradict_is_refused_by_diffusers(tmp_path: Path) -> None:
    settings = '{"unet.r": 2, "unet.lora_alpha": 4, "unet.rank_pattern": {"attn2\\\\.to_.": 8}}'
    tensors = pair(f"unet.{KEY}", (320, 768), (".lora_A", ".lora_B"))
    _, found = checked(tmp_path, tensors, {"lora_adapter_metadata": settings})
    assert "rank 8, its tensors have rank 2" in found["diffusers"].sentence


def test_alphas_by_regular_expression_are_right_in_diffusers(tmp_path: Path) -> None:
    settings = '{"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"attn2\\\\.to_.": 32}}'
    tensors = pair(f"unet.{KEY}", (320, 768), (".lora_A", ".lora_B"))
    tensors |= pair(f"unet.{QUERY}", (320, 320), (".lora_A", ".lora_B"))
    _, found = checked(tmp_path, tensors, {"lora_adapter_metadata": settings})
    assert found["diffusers"].verdict == "right"


def test_other_kinds_are_named(tmp_path: Path) -> None:
    stem = "lora_unet_" + KEY.replace(".", "_")
    with pytest.raises(AdapterError, match=r"'lora_unet_\S+\.diff' \(full difference\)"):
        checked(tmp_path, {f"{stem}.diff": torch.randn(320, 768)})
