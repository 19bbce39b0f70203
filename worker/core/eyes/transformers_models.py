"""Eyes of models in transformers' format: CLIP with both sides, DINO with images alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPModel
from transformers.utils import cached_file

from worker.core.eyes.images import as_rgb, check_images
from worker.core.eyes.interface import (
    ChannelStatistics,
    Embeddings,
    Eyes,
    EyesError,
    NoTextSide,
    check_texts,
    unit_length,
)

BATCH = 16
PREPROCESSING = "preprocessor_config.json"
CLIP_TYPE = "clip"
DINO_TYPES = frozenset({"vit", "dinov2", "dinov2_with_registers", "dinov3_vit"})
"""DINO's first version is stored as a plain ViT."""


@dataclass(frozen=True)
class Preprocessing:
    """The image format that a model needs: scaled, cut to the middle, standardized."""

    shortest_edge: int
    crop: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From the content of a preprocessor_config.json; sizes stand there in several forms."""
        size = _edge(config["size"])
        crop = _edge(config["crop_size"]) if config.get("do_center_crop") else size
        return cls(size, crop, tuple(config["image_mean"]), tuple(config["image_std"]))

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """(3, crop, crop)."""
        rgb = as_rgb(image)
        scale = self.shortest_edge / min(rgb.size)
        width, height = (max(self.crop, round(side * scale)) for side in rgb.size)
        large = rgb.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        pixels = np.asarray(large.crop((left, top, left + self.crop, top + self.crop)))
        values = (pixels.astype(np.float32) / 255 - self.mean) / self.deviation
        return np.asarray(values.transpose(2, 0, 1), dtype=np.float32)


class _ImageSide:
    """The common part of CLIP and DINO: images in batches through a model."""

    title: str
    use: str
    names: tuple[str, ...] = ()

    def __init__(
        self, model: Any, preprocessing: Preprocessing, *, dimensions: int, device: str
    ) -> None:
        self.model = model.to(device).eval()
        self.vision = getattr(self.model, "vision_model", self.model)
        self.preprocessing = preprocessing
        self.dimensions = dimensions
        self.device = device
        self._others = 1 + getattr(model.config, "num_register_tokens", 0)  # before the patches

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        parts = [self._see(batch).float().cpu() for batch in self._batches(images)]
        return unit_length(torch.cat(parts).numpy())

    @torch.no_grad()
    def channel_statistics(self, images: Sequence[Image.Image]) -> ChannelStatistics:
        """Of the patches after the layers at a quarter and at half of the depth."""
        found: list[tuple[Tensor, ...]] = []
        for batch in self._batches(images):
            # (n, 1 + patches, width) each
            layers = self.vision(pixel_values=batch, output_hidden_states=True).hidden_states
            depth = len(layers) - 1  # the first one is the input
            chosen = [layers[max(1, depth // 4)], layers[max(1, depth // 2)]]
            patches = [hidden[:, self._others :].float() for hidden in chosen]
            moments = (torch.cat([one.mean(dim=1), one.std(dim=1)], dim=1) for one in patches)
            found.append(tuple(one.cpu() for one in moments))
        return tuple(torch.cat(parts).numpy() for parts in zip(*found, strict=True))

    def _batches(self, images: Sequence[Image.Image]) -> Iterator[Tensor]:
        """What the model reads, at most BATCH images each. Raises EyesError."""
        check_images(images)
        for start in range(0, len(images), BATCH):
            batch = [self.preprocessing.apply(image) for image in images[start : start + BATCH]]
            yield torch.from_numpy(np.stack(batch)).to(self.device)

    def _see(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError


class ClipEyes(_ImageSide):
    """CLIP (Radford et al., 2021, arXiv:2103.00020): any text can be compared with any image."""

    title = "CLIP"
    use = (
        "It sees subjects and scenes as any text says them; limits of copying were not set for it."
    )

    def __init__(
        self, model: Any, tokenizer: Any, preprocessing: Preprocessing, *, device: str
    ) -> None:
        width = int(model.config.projection_dim)
        super().__init__(model, preprocessing, dimensions=width, device=device)
        self.tokenizer = tokenizer
        self.scale = float(model.logit_scale.detach().exp())

    def _see(self, pixels: Tensor) -> Tensor:
        hidden = self.vision(pixel_values=pixels).pooler_output
        return cast(Tensor, self.model.visual_projection(hidden))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        check_texts(texts)
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        hidden = self.model.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        return unit_length(self.model.text_projection(hidden).float().cpu().numpy())

    def knows(self, texts: Sequence[str]) -> list[bool]:
        check_texts(texts)
        return [True] * len(texts)


class DinoEyes(_ImageSide):
    """DINO, DINOv2 or DINOv3 (Oquab et al., 2023, arXiv:2304.07193): images alone."""

    title = "DINO"
    use = (
        "It sees how alike subjects are and reads no text, so prompts are compared with the base "
        "model's images; limits of copying were not set for it."
    )

    def _see(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.vision(pixel_values=pixels).last_hidden_state[:, 0])

    @property
    def scale(self) -> float:
        raise self._no_text_side()

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        raise self._no_text_side()

    def knows(self, texts: Sequence[str]) -> list[bool]:
        raise self._no_text_side()

    def _no_text_side(self) -> NoTextSide:
        return NoTextSide(
            "DINO models compare images with images only. For texts and names use the embedded "
            "eyes or a CLIP model."
        )


def load_transformers_eyes(source: str | Path, *, device: str) -> Eyes:
    """The eyes of a CLIP or DINO model in a folder or on the Hub. Raises EyesError.

    Weights are read from safetensors files only, and no code of the repository is run.
    """
    name = str(source)
    try:
        config = AutoConfig.from_pretrained(name)
        path = cached_file(name, PREPROCESSING)
        preprocessing = Preprocessing.read(json.loads(Path(str(path)).read_text("utf-8")))
        if config.model_type == CLIP_TYPE:
            model = CLIPModel.from_pretrained(name, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(name)
            return ClipEyes(model, tokenizer, preprocessing, device=device)
        if config.model_type in DINO_TYPES:
            model = AutoModel.from_pretrained(name, use_safetensors=True)
            width = int(config.hidden_size)
            return DinoEyes(model, preprocessing, dimensions=width, device=device)
    except Exception as error:  # transformers and the Hub raise a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EyesError(
            f"{name} cannot be opened as eyes: {reason} Give the folder or the Hub id of a CLIP "
            "or DINO model with safetensors weights."
        ) from error
    raise EyesError(
        f"{name} is a model of type “{config.model_type}”, which are no eyes. Give a CLIP or DINO "
        "model."
    )


def _edge(size: int | Mapping[str, int]) -> int:
    """The side in `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    return int(size if isinstance(size, int) else size.get("shortest_edge") or size["height"])
