"""A quick image of unfinished latents: a linear map of their channels to red, green and blue.

The published autoencoders keep position and color of each 8 × 8 pixels in one latent, so that a
linear map shows what the image will be, one pixel per latent, thousands of times faster than the
decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.core.families.facts.latents import LinearMap


def has_linear_map(latent: Tensor, linear: LinearMap) -> bool:
    """True if these latents (channels, height, width) are of the published autoencoder's kind."""
    return latent.shape[0] == len(linear.factors)


def approximate_pixels(latent: Tensor, linear: LinearMap) -> Tensor:
    """The pixels (3, height, width) in about -1 to 1 of a scaled latent (channels, height, width).

    fp32, one pixel per latent. Finetuned autoencoders decode a little differently.
    """
    factors = torch.tensor(linear.factors, dtype=torch.float32, device=latent.device).T
    offsets = torch.tensor(linear.offsets, dtype=torch.float32, device=latent.device)
    if linear.has_levels:
        factors, offsets = factors * (2 / 255), offsets * (2 / 255) - 1
    flat = factors @ latent.float().flatten(1) + offsets[:, None]
    return flat.view(3, *latent.shape[1:])
