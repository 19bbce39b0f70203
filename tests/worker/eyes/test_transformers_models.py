"""Tiny models from configs, in the file formats of the Hub's repositories."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from worker.core.bases.tokenizer import clip_tokenizer
from worker.core.eyes import EyesError, NoTextSide, name_images, open_eyes
from worker.core.eyes.transformers_models import Preprocessing

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
PREPROCESSING = {
    "do_center_crop": True,
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}
TOKENIZER = partial(clip_tokenizer, length=77, pad="<|endoftext|>")


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    folder = save(model, tmp_path_factory.mktemp("clip"))
    TOKENIZER().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["dinov2", "vit"])
def dino(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    kinds = {"dinov2": (Dinov2Model, Dinov2Config), "vit": (ViTModel, ViTConfig)}
    model, config = kinds[request.param]
    return save(model(config(**VISION)), tmp_path_factory.mktemp(request.param))


def test_clip_names_images_by_any_text(clip: Path, images: list[Image.Image]) -> None:
    eyes = open_eyes(clip, device="cpu")
    named = name_images(eyes, images, ["a lighthouse", "a cat"])
    assert {guess.name for guess in named[0]} == {"a lighthouse", "a cat"}
    assert eyes.knows(["lighthouse", "灯台"]) == [True, True]
    assert eyes.names == ()


def test_clip_embeds_both_sides_as_transformers_does(clip: Path, images: list[Image.Image]) -> None:
    eyes = open_eyes(clip, device="cpu")
    model = CLIPModel.from_pretrained(clip).eval()
    pixels = np.stack([Preprocessing.read(PREPROCESSING).apply(image) for image in images])
    tokens = TOKENIZER()(["a cat", "house"], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=torch.from_numpy(pixels), **tokens)
    assert eyes.embed_images(images).shape == (5, 24) == (5, eyes.dimensions)
    assert np.allclose(eyes.embed_images(images), output.image_embeds.numpy(), atol=1e-5)
    assert np.allclose(eyes.embed_texts(["a cat", "house"]), output.text_embeds.numpy(), atol=1e-5)
    assert eyes.scale == pytest.approx(model.logit_scale.exp().item())


def test_a_text_longer_than_clip_reads_is_cut(clip: Path) -> None:
    assert open_eyes(clip, device="cpu").embed_texts(["cat " * 500]).shape == (1, 24)


def test_dino_compares_images(dino: Path, images: list[Image.Image]) -> None:
    seen = open_eyes(dino, device="cpu").embed_images(images * 4)
    assert seen.shape == (20, 32)
    assert np.allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-5)
    assert np.allclose(seen[:5], seen[5:10], atol=1e-4)


def test_the_look_of_an_image_is_that_of_its_patches_in_two_layers(
    clip: Path, dino: Path, images: list[Image.Image]
) -> None:
    for source in (clip, dino):
        eyes = open_eyes(source, device="cpu")
        early, middle = eyes.channel_statistics(images * 4)
        assert early.shape == middle.shape == (20, 2 * 32)
        assert np.allclose(early[:5], early[5:10], atol=1e-4)
        assert not np.allclose(early[0], early[1], atol=1e-2)


def test_dino_has_no_text_side(dino: Path, images: list[Image.Image]) -> None:
    eyes = open_eyes(dino, device="cpu")
    for ask in (
        lambda: eyes.embed_texts(["cat"]),
        lambda: eyes.knows(["cat"]),
        lambda: eyes.scale,
        lambda: name_images(eyes, images, ["cat"]),
    ):
        with pytest.raises(NoTextSide, match="compare images with images only"):
            ask()


@pytest.mark.parametrize(
    ("size", "edge"), [(32, 32), ({"shortest_edge": 40}, 40), ({"height": 48, "width": 48}, 48)]
)
def test_sizes_are_read_in_every_form(size: Any, edge: int) -> None:
    read = Preprocessing.read({**PREPROCESSING, "size": size, "do_center_crop": False})
    assert (read.shortest_edge, read.crop) == (edge, edge)
    assert read.apply(Image.new("L", (500, 30))).shape == (3, edge, edge)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EyesError, match="cannot be opened as eyes"):
        open_eyes(tmp_path, device="cpu")


def test_a_model_of_another_type_is_an_error(tmp_path: Path, dino: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((dino / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(EyesError, match="“bert”"):
        open_eyes(tmp_path, device="cpu")


def test_weights_that_are_no_safetensors_are_not_read(tmp_path: Path, clip: Path) -> None:
    for path in clip.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not for us")
    with pytest.raises(EyesError, match="cannot be opened as eyes"):
        open_eyes(tmp_path, device="cpu")
