"""A quick image of unfinished latents: a linear map of their four channels to red, green and blue.

The published autoencoders keep position and color of each 8 × 8 pixels in one latent, so that a
linear map shows what the image will be, one pixel per latent, thousands of times faster than the
decoder. Factors for SD 1.x, whose latents SD 2.x shares: keturn, "Decoding latents to RGB without
upscaling", discuss.huggingface.co, topic 23204; for SDXL: T. A. Vass, "Explaining the SDXL latent
space", Hugging Face blog, where levels are 0 to 255.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.core.bases.family import BaseFamily

CHANNELS = 4
_SD1_FACTORS = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)  # latent channel to (red, green, blue), of pixels in -1 to 1
_SDXL_LEVELS = ((60, -60, 25, -70), (60, -5, 15, -50), (60, 10, -5, -35))  # color by channel
_SDXL_MEAN_LEVELS = (150, 140, 130)


def has_linear_map(latent: Tensor) -> bool:
    """True if these latents (channels, height, width) are of a published autoencoder's kind."""
    return latent.shape[0] == CHANNELS


def approximate_pixels(latent: Tensor, family: BaseFamily) -> Tensor:
    """The pixels (3, height, width) in about -1 to 1 of a scaled latent (4, height, width), fp32.

    One pixel per latent. Finetuned autoencoders decode a little differently.
    """
    factors, offsets = _linear_map(family)
    flat = factors.to(latent.device) @ latent.float().flatten(1)
    return (flat + offsets.to(latent.device)[:, None]).view(3, *latent.shape[1:])


def _linear_map(family: BaseFamily) -> tuple[Tensor, Tensor]:
    """(factors (3, 4), offsets (3)) for pixels in -1 to 1."""
    if family is not BaseFamily.SDXL:
        return torch.tensor(_SD1_FACTORS).T, torch.zeros(3)
    per_level = 2 / 255
    means = torch.tensor(_SDXL_MEAN_LEVELS, dtype=torch.float32)
    return torch.tensor(_SDXL_LEVELS, dtype=torch.float32) * per_level, means * per_level - 1
