"""Image to image: images that begin as another image with noise, not as noise alone.

SDEdit (Meng et al. 2022, arXiv 2108.01073) as in diffusers' StableDiffusionImg2ImgPipeline: of all
steps only the last steps × strength are run, from the encoded image with the noise of the first of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from worker.core.latents import encode

PAPER = "white"  # behind what is transparent, as in training


@dataclass(frozen=True, eq=False)
class SourceLatents:
    """The posterior of an image, scaled as latents are: mean and deviation (channels, h, w), fp32.

    `std` is None for an autoencoder with plain latents.
    """

    mean: Tensor
    std: Tensor | None
    strength: float

    def sample(self, generators: Sequence[torch.Generator]) -> Tensor:
        """The clean latents (n, channels, h, w) of images with these generators, on the CPU.

        Each is a sample of the posterior by the image's own generator, before its noise.
        """
        if self.std is None:
            return self.mean.expand(len(generators), -1, -1, -1)
        shape = self.mean.shape
        chance = [torch.randn(shape, generator=generator) for generator in generators]
        return self.mean + self.std * torch.stack(chance)


def fit_source(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image that fills this size in pixels, RGB on white."""
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, PAPER)
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


def encode_source(
    vae: Any, image: Image.Image, *, width: int, height: int, strength: float
) -> SourceLatents:
    """The latents of an image, fitted to this size in pixels."""
    levels = np.asarray(fit_source(image, width, height), dtype=np.float32)
    pixels = torch.from_numpy(levels / 127.5 - 1.0).permute(2, 0, 1)
    (found,) = encode(vae, pixels[None])
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    factor = vae.config.scaling_factor
    std = None if found.std is None else found.std * factor
    return SourceLatents((found.mean - shift) * factor, std, strength)
