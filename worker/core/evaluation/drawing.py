"""Draws what an evaluation measures, and keeps each image, so that it can be continued."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from worker.core.atomic_write import write_atomically
from worker.core.evaluation.subjects import STEPS
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.sampling import decode_latent, to_image
from worker.core.inference.source_images import encode_source
from worker.core.lora_files.canonical import load_adapter
from worker.core.lora_files.loaded import LoadedAdapter


@dataclass(frozen=True)
class AdapterFile:
    """A canonical adapter to evaluate, at a weight."""

    path: Path
    weight: float = 1.0

    def load(self) -> LoadedAdapter:
        """The adapter in memory. Raises AdapterError."""
        return LoadedAdapter(self.fingerprint, load_adapter(self.path), self.weight)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of its file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class FolderDrawing:
    """Images of one base, kept in a folder under the hash of all that they depend on."""

    def __init__(
        self,
        pipeline: ResidentPipeline,
        folder: Path,
        files: Mapping[str, AdapterFile],
        *,
        guidance: float,
        on_image: Callable[[], None] = lambda: None,
    ) -> None:
        self._pipeline = pipeline
        self._folder = folder
        self._files = files
        self._loaded: str | None = None
        self._settings = {"guidance": guidance, "steps": STEPS}
        self._on_image = on_image

    def images(self, candidate: str | None, prompts: Sequence[str]) -> list[Image.Image]:
        """An image of each prompt; the seed of a prompt is its place, whoever draws it.

        Raises AdapterError and RenderError.
        """
        file = None if candidate is None else self._files[candidate]
        key = None if file is None else (file.fingerprint, file.weight)
        found = []
        for seed, prompt in enumerate(prompts):
            path = self._path(key, prompt, seed)
            image = _read(path)
            if image is None:
                self._use(candidate)
                image = self._draw(path, prompt, seed)
            found.append(image)
            self._on_image()
        return found

    def through_autoencoder(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images as this base can draw them, at its native size."""
        base = self._pipeline.base
        return [through_autoencoder(base.vae, one, side=base.info.resolution) for one in images]

    def _use(self, candidate: str | None) -> None:
        """Load the adapter, unless it drew the last image."""
        if candidate != self._loaded:
            stack = [] if candidate is None else [self._files[candidate].load()]
            self._pipeline.set_adapters(stack)
            self._loaded = candidate

    def _draw(self, path: Path, prompt: str, seed: int) -> Image.Image:
        sampler, *_ = self._pipeline.base.info.family.facts.options.samplers
        config = RenderConfig(prompt=prompt, seed=seed, sampler=sampler, **self._settings)
        image = self._pipeline.render(config)[0].image
        content = io.BytesIO()
        image.save(content, format="PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue(), durable=False)
        return image

    def _path(self, adapter: tuple[str, float] | None, prompt: str, seed: int) -> Path:
        base = self._pipeline.base.info.fingerprint
        key = json.dumps([base, adapter, prompt, seed, self._settings])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.png"


@torch.inference_mode()
def through_autoencoder(vae: Any, image: Image.Image, *, side: int | None = None) -> Image.Image:
    """The image as this autoencoder returns it, as a square of this side; None: in its size."""
    width, height = (side, side) if side else image.size
    latents = encode_source(vae, image, width=width, height=height, strength=0.0).mean
    return to_image(decode_latent(vae, latents.to(next(vae.parameters()).device)))


def _read(path: Path) -> Image.Image | None:
    """The image that was kept; None if there is none, or only a part of it."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError:
        return None
