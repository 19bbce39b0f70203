"""The autoencoder of FLUX.2 with the latents that its transformer reads.

Squares of 2 × 2 latents lie on top of each other, and each of the 4 c channels is normalized by the
statistics of a batch norm, as Flux2KleinPipeline of diffusers does it (_patchify_latents). So code
that knows any autoencoder of diffusers can use it: 16 pixels are one latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

PATCH = 2


class PackedAutoencoder(AutoencoderKLFlux2):  # type: ignore[misc] # of Any: not typed
    """AutoencoderKLFlux2 whose latents (b, 4 c, height / 16, width / 16) are normalized."""

    @property
    def config(self) -> Any:
        """The config, with a factor of 1: these latents are scaled already."""
        return FrozenDict({**super().config, "scaling_factor": 1.0})

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """The posterior of images (b, 3, height, width): `latent_dist` with mean and std."""
        posterior = super().encode(x).latent_dist
        mean, deviation = self._statistics()
        packed = (pack(posterior.mean) - mean) / deviation
        return SimpleNamespace(
            latent_dist=SimpleNamespace(mean=packed, std=pack(posterior.std) / deviation)
        )

    def decode(self, z: Tensor, return_dict: bool = True, **unused: Any) -> Sequence[Tensor]:
        """The pixels of normalized latents, in a tuple."""
        mean, deviation = self._statistics()
        raw = unpack(z * deviation + mean)
        return super().decode(raw, return_dict=False)  # type: ignore[no-any-return]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel, (1, 4 c, 1, 1)."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        deviation = torch.sqrt(variance + self.config.batch_norm_eps)
        return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def pack(latents: Tensor) -> Tensor:
    """(b, c, h, w) as (b, 4 c, h / 2, w / 2)."""
    b, c, h, w = latents.shape
    squares = latents.view(b, c, h // PATCH, PATCH, w // PATCH, PATCH)
    return squares.permute(0, 1, 3, 5, 2, 4).reshape(b, c * PATCH**2, h // PATCH, w // PATCH)


def unpack(latents: Tensor) -> Tensor:
    """(b, 4 c, h, w) as (b, c, 2 h, 2 w)."""
    b, c, h, w = latents.shape
    squares = latents.reshape(b, c // PATCH**2, PATCH, PATCH, h, w)
    return squares.permute(0, 1, 4, 2, 5, 3).reshape(b, c // PATCH**2, h * PATCH, w * PATCH)
