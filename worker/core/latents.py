"""Latents of images: the posterior that an autoencoder gives for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Latent:
    """The VAE's posterior of an image, unscaled: mean and deviation (c, h, w).

    `std` is None for a VAE with plain latents (AutoencoderTiny); `opacity` (1, h, w), 0 to 1, is
    None for a fully opaque image.
    """

    mean: Tensor
    std: Tensor | None
    opacity: Tensor | None = None


@torch.inference_mode()
def encode(vae: Any, pixels: Tensor) -> list[Latent]:
    """Latents of images (b, 3, height, width) in [-1, 1], one per image, on the CPU in fp32."""
    weight = next(vae.parameters())
    encoded = vae.encode(pixels.to(weight.device, weight.dtype))
    if not hasattr(encoded, "latent_dist"):
        return [Latent(mean, None) for mean in _split_batch(encoded.latents)]
    posterior = encoded.latent_dist
    pairs = zip(_split_batch(posterior.mean), _split_batch(posterior.std), strict=True)
    return [Latent(mean, std) for mean, std in pairs]


def _split_batch(tensor: Tensor) -> list[Tensor]:
    """Each image's latent in fp32, in separate memory."""
    return [part.float().cpu().clone(memory_format=torch.contiguous_format) for part in tensor]
