"""The kind of a base is known without loading it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import worker.core.starter
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base
from worker.core.families.family import BaseFamily


@pytest.fixture
def sd15(sd15_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sd15_folder, tmp_path / "sd15")


def test_the_embedded_base_says_how_it_is_repaired(
    sd15_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever installed Brushwork has nothing to download again, and no other base to use."""
    folder = shutil.copytree(sd15_folder, tmp_path / "base")
    monkeypatch.setattr(worker.core.starter, "PATH", folder)
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1000])
    with pytest.raises(BaseModelError) as truncated:
        inspect_base(folder)
    file.unlink()
    with pytest.raises(BaseModelError) as missing:
        load_base(folder)
    for error in (truncated, missing):
        assert str(error.value).endswith(f". {worker.core.starter.REPAIR}")
        assert "ownload" not in str(error.value)
    assert "unet/ has no weights" in str(missing.value)


def test_the_embedded_base_is_described_like_any_other() -> None:
    info = inspect_base(worker.core.starter.PATH)
    assert info.family is BaseFamily.SD1
    assert (info.layout, info.prediction_type) == ("diffusers", "v_prediction")
    unet = json.loads((worker.core.starter.PATH / "unet/config.json").read_text())
    assert info.resolution == 8 * unet["sample_size"]
    assert info.cross_attention_dim == unet["cross_attention_dim"]
    assert info.parameters["unet"] > 10_000_000
    assert not info.zero_empty_negative


def test_two_encoders_and_size_conditioning_mean_sdxl(sdxl_folder: Path) -> None:
    info = inspect_base(sdxl_folder)
    assert info.family is BaseFamily.SDXL
    assert info.parameters.keys() == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert info.zero_empty_negative
    assert info.resolution == 64


def test_inspecting_needs_no_torch() -> None:
    code = (
        "import sys, worker.core.starter; from worker.core.bases.inspect import inspect_base;"
        "inspect_base(worker.core.starter.PATH); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_fingerprint_names_the_weights_and_not_the_place(sd15: Path, tmp_path: Path) -> None:
    before = inspect_base(sd15).fingerprint
    moved = shutil.copytree(sd15, tmp_path / "elsewhere")
    assert inspect_base(moved).fingerprint == before
    weights = moved / "unet/diffusion_pytorch_model.safetensors"
    finetuned = {name: tensor * 1.001 for name, tensor in load_file(weights).items()}
    save_file(finetuned, weights, {"format": "pt"})
    assert inspect_base(moved).fingerprint != before


def test_a_pickle_in_a_folder_is_refused(sd15: Path) -> None:
    (sd15 / "unet/diffusion_pytorch_model.safetensors").rename(
        sd15 / "unet/diffusion_pytorch_model.bin"
    )
    with pytest.raises(BaseModelError, match="pickle"):
        inspect_base(sd15)


def test_a_checkpoint_pickle_is_refused_by_content(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, file)
    with pytest.raises(BaseModelError, match="pickle"):
        inspect_base(file)


def test_an_inpainting_model_is_refused(sd15: Path) -> None:
    config = sd15 / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    with pytest.raises(BaseModelError, match="inpainting"):
        inspect_base(sd15)


def test_a_missing_part_is_named(sd15: Path) -> None:
    shutil.rmtree(sd15 / "vae")
    with pytest.raises(BaseModelError, match="vae"):
        inspect_base(sd15)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("double_blocks.0.img_attn.qkv.weight", r"^This is FLUX\.1, which cannot be trained here"),
        ("audio.weight", "Use a complete base model"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, tensor: str, message: str) -> None:
    file = tmp_path / "other.safetensors"
    save_file({tensor: torch.zeros(2, 2)}, file)
    with pytest.raises(BaseModelError, match=message):
        inspect_base(file)


@pytest.mark.parametrize(
    ("pipeline", "transformer", "name"),
    [
        ("FluxPipeline", "FluxTransformer2DModel", "FLUX.1"),
        ("Flux2Pipeline", "Flux2Transformer2DModel", "FLUX.2"),
        ("Flux3Pipeline", "Flux3Transformer2DModel", "FLUX.3"),
        ("StableDiffusion3Pipeline", "SD3Transformer2DModel", "Stable Diffusion 3"),
        ("QwenImagePipeline", "QwenImageTransformer2DModel", "Qwen-Image"),
        ("KolorsPipeline", None, "Kolors"),
        ("NewPipeline", "NewTransformer", "a model with a NewTransformer"),
    ],
)
def test_a_folder_of_another_model_is_refused_by_name(
    tmp_path: Path, pipeline: str, transformer: str | None, name: str
) -> None:
    index = {"_class_name": pipeline, "transformer": ["diffusers", transformer]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=re.escape(f"This is {name}, which cannot be trained")):
        inspect_base(tmp_path)


def test_nothing_at_the_path_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no base model at 'gone'"):
        inspect_base(tmp_path / "gone")
