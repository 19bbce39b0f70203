"""What the UNet should have predicted, and how much each noise level counts.

x_t = sqrt(a) x_0 + sqrt(1 - a) e, where a is the cumulative alpha of timestep t
(Ho et al. 2020, arXiv 2006.11239). Latents are (b, c, h, w), timesteps (b,).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from worker.training.config import PredictionType


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The cumulative alphas of a base, (timesteps,) in fp32."""

    alphas: Tensor

    @classmethod
    def of(cls, scheduler_config: Mapping[str, Any], *, device: str) -> "NoiseSchedule":
        """Read it from the base's own scheduler, zero-terminal-SNR rescaling included
        (Lin et al. 2023, arXiv 2305.08891)."""
        scheduler = DDPMScheduler.from_config(dict(scheduler_config))
        return cls(scheduler.alphas_cumprod.to(device, torch.float32))

    def __len__(self) -> int:
        return len(self.alphas)

    def alpha(self, timesteps: Tensor) -> Tensor:
        """(b, 1, 1, 1), to multiply latents with."""
        return self.alphas[timesteps].view(-1, 1, 1, 1)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal to noise, a / (1 - a), (b,); zero at the end of a rescaled schedule."""
        alpha = self.alphas[timesteps]
        return alpha / (1 - alpha)

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of these latents."""
        alpha = self.alpha(timesteps)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans & Ho 2022, arXiv 2202.00512)."""
        alpha = self.alpha(timesteps)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def stratified_timesteps(count: int, total: int, generator: torch.Generator) -> Tensor:
    """(count,) timesteps, one from each of `count` equal parts of 0 … total - 1.

    Uniform like independent draws, with less noise between batches (Kingma et al. 2021,
    arXiv 2107.00630, appendix I.1).
    """
    position = torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)
    return (position * total / count).long().clamp(max=total - 1)


def offset_noise(shape: torch.Size, generator: torch.Generator, *, offset: float) -> Tensor:
    """Normal noise, with a random shift of each channel (crosslabs.org, "Diffusion With Offset
    Noise", 2023) that lets a base learn the mean brightness."""
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn((*shape[:2], 1, 1), generator=generator)
    return noise


def min_snr_weights(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v, (b,)
    (Hang et al. 2023, arXiv 2303.09556)."""
    if prediction is PredictionType.EPSILON:
        return (gamma / snr).clamp(max=1.0)  # at SNR 0 this is 1, the limit
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    predicted: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """The weighted mean squared error over a batch, in fp32."""
    errors = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
    return errors.mean() if weights is None else (errors * weights).mean()
