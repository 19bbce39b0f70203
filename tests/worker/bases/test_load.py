"""Bases load from folders and single files, with the weights that were saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

import worker.core.starter
from tests.worker.bases.tiny_models import (
    autoencoder,
    clip_to_ldm,
    clip_to_open_clip,
    save_single,
    sd2_unet,
    text_config,
)
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base
from worker.core.bases.single_file import text_config as text_config_of
from worker.core.families.family import BaseFamily


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def single_file_of(folder: Path, file: Path, **options: Any) -> Path:
    base = load_base(folder)
    encoders = {"cond_stage_model.transformer.": clip_to_ldm(base.text_encoders[0])}
    if len(base.text_encoders) == 2:
        encoders = {
            "conditioner.embedders.0.transformer.": clip_to_ldm(base.text_encoders[0]),
            "conditioner.embedders.1.model.": clip_to_open_clip(base.text_encoders[1]),
        }
    return save_single(file, unet=base.denoiser, vae=base.vae, encoders=encoders, **options)


@pytest.fixture(scope="module")
def sd15_file(sd15_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks of an SD 1.5 in a single file."""
    return single_file_of(sd15_folder, tmp_path_factory.mktemp("file") / "model.safetensors")


def test_a_folder_loads_with_the_weights_that_diffusers_reads(sd15_folder: Path) -> None:
    folder = sd15_folder
    base = load_base(folder)
    assert same_weights(base.denoiser, UNet2DConditionModel.from_pretrained(folder / "unet"))
    assert same_weights(
        base.text_encoders[0], CLIPTextModel.from_pretrained(folder / "text_encoder")
    )
    assert not any(p.requires_grad for p in base.denoiser.parameters())
    assert base.scheduler_config["beta_schedule"] == "scaled_linear"


def test_half_precision_weights_load_as_the_type_asked_for() -> None:
    base = load_base(worker.core.starter.PATH)
    assert base.denoiser.dtype is torch.float32
    half = load_base(worker.core.starter.PATH, dtype=torch.bfloat16)
    assert half.denoiser.dtype is torch.bfloat16
    assert half.text_encoders[0].dtype is torch.bfloat16
    assert half.vae.dtype is torch.float32  # overflows in fp16 for SDXL


def test_a_unet_can_stay_as_it_is_stored() -> None:
    stored = load_base(worker.core.starter.PATH, denoiser_dtype="stored")
    assert stored.denoiser.dtype is torch.float16
    assert stored.text_encoders[0].dtype is torch.float32
    stored.denoiser.float()
    assert same_weights(stored.denoiser, load_base(worker.core.starter.PATH).denoiser)


@pytest.mark.parametrize("layout", ["folder", "file"])
def test_a_unet_in_bf16_is_read_again_when_more_is_needed(
    layout: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue({"folder": "smallest_sd15_folder", "file": "sd15_file"}[layout])
    exact, short = load_base(path), load_base(path, denoiser_dtype=torch.bfloat16)
    assert same_weights(short.denoiser, load_base(path, dtype=torch.bfloat16).denoiser)
    assert short.text_encoders[0].dtype is torch.float32
    weight = short.read_denoiser_weight("conv_in")
    assert weight is not None
    assert torch.equal(weight, exact.denoiser.conv_in.weight)
    short.cast_denoiser(torch.float32)
    assert same_weights(short.denoiser, exact.denoiser)
    exact.cast_denoiser(torch.bfloat16)
    exact.cast_denoiser(torch.float32)
    assert same_weights(short.denoiser, exact.denoiser)


def test_a_file_that_ends_early_is_a_sentence(smallest_sd15_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    base = load_base(folder, components=["unet"])
    weights.write_bytes(weights.read_bytes()[:5_000])
    with pytest.raises(BaseModelError, match="ended early"):
        base.cast_denoiser(torch.bfloat16) or base.cast_denoiser(torch.float32)
    weights.unlink()
    with pytest.raises(BaseModelError, match="cannot be read"):
        base.read_denoiser_weight("conv_in")


def test_only_the_parts_asked_for_are_loaded() -> None:
    base = load_base(worker.core.starter.PATH, components=["vae"])
    assert base.vae is not None
    assert base.denoiser is None
    assert base.text_encoders == []


def test_the_fp16_variant_is_found(smallest_sd15_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    plain = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(plain).items()}
    save_file(tensors, plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    plain.unlink()
    unet = load_base(folder, components=["unet"]).denoiser
    assert torch.equal(unet.conv_in.weight, tensors["conv_in.weight"].float())


def test_old_names_of_encoder_and_autoencoder_are_read(
    smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    before = load_base(folder)
    encoder = folder / "text_encoder/model.safetensors"
    save_file({f"text_model.{name}": t for name, t in load_file(encoder).items()}, encoder)
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(vae).items():
        for new, was in old.items():
            name = name.replace(f".{new}.", f".{was}.")
        renamed[name] = tensor
    save_file(renamed, vae)
    after = load_base(folder)
    assert same_weights(before.vae, after.vae)
    assert same_weights(before.text_encoders[0], after.text_encoders[0])


def test_a_single_sd15_file_loads_as_the_folder_does(sd15_folder: Path, sd15_file: Path) -> None:
    folder, file = sd15_folder, sd15_file
    info = inspect_base(file)
    assert (info.layout, info.family, info.resolution) == ("single_file", BaseFamily.SD1, 512)
    expected, base = load_base(folder), load_base(file)
    assert same_weights(base.denoiser, expected.denoiser)
    assert same_weights(base.vae, expected.vae)
    assert same_weights(base.text_encoders[0], expected.text_encoders[0])
    assert base.info.parameters == expected.info.parameters
    for key in ("block_out_channels", "attention_head_dim", "cross_attention_dim"):
        assert base.denoiser.config[key] == list_or_same(expected.denoiser.config[key])


def list_or_same(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_a_single_sdxl_file_loads_as_the_folder_does(sdxl_folder: Path, tmp_path: Path) -> None:
    folder = sdxl_folder
    file = single_file_of(
        folder,
        tmp_path / "model.safetensors",
        metadata={"modelspec.prediction_type": "v", "modelspec.resolution": "64x64"},
    )
    info = inspect_base(file)
    assert info.family is BaseFamily.SDXL
    assert (info.prediction_type, info.resolution) == ("v_prediction", 64)
    expected, base = load_base(folder), load_base(file)
    assert same_weights(base.denoiser, expected.denoiser)
    assert same_weights(base.vae, expected.vae)
    assert all(map(same_weights, base.text_encoders, expected.text_encoders))
    assert base.vae.config.scaling_factor == 0.13025
    config = base.denoiser.config
    assert config.transformer_layers_per_block == [1, 2, 3]
    assert config.addition_time_embed_dim == 8
    assert base.text_encoders[1].config.hidden_act == "gelu"
    assert [tokenizer.pad_token for tokenizer in base.tokenizers] == ["<|endoftext|>", "!"]


def test_a_single_sd2_file_leaves_the_last_encoder_layer_out(tmp_path: Path) -> None:
    encoder = CLIPTextModel(
        text_config(
            vocab_size=100,
            hidden_size=1024,
            num_hidden_layers=1,
            num_attention_heads=16,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    unet = sd2_unet()
    file = save_single(
        tmp_path / "sd2.safetensors",
        unet=unet,
        vae=autoencoder(),
        encoders={"cond_stage_model.model.": clip_to_open_clip(encoder, extra_layer=True)},
    )
    base = load_base(file)
    assert base.info.family is BaseFamily.SD2
    assert (base.info.prediction_type, base.info.resolution) == ("v_prediction", 768)
    assert same_weights(base.denoiser, unet)
    assert same_weights(base.text_encoders[0], encoder)


@pytest.mark.parametrize("layers", [23, 24])
def test_an_sd2_file_made_of_a_folder_has_lost_the_last_layer_already(layers: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (49408, 1024),
        "positional_embedding": (77, 1024),
    }
    for layer in range(layers):
        shapes[f"transformer.resblocks.{layer}.mlp.c_fc.weight"] = (4096, 1024)
    assert text_config_of(shapes, BaseFamily.SD2)["num_hidden_layers"] == 23


def test_missing_weights_are_named(smallest_sd15_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_out.bias"]
    save_file(tensors, weights)
    with pytest.raises(BaseModelError, match=r"unet has no conv_out\.bias"):
        load_base(folder)


def test_a_config_that_does_not_fit_the_weights_is_a_sentence(
    smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    config = folder / "unet/config.json"
    width = '"cross_attention_dim": {}'
    config.write_text(config.read_text().replace(width.format(64), width.format(32)))
    with pytest.raises(BaseModelError, match="its config needs"):
        load_base(folder, components=["unet"])
