"""The diffusion process of UNets: x_t = sqrt(a) x_0 + sqrt(1 - a) e.

a is the cumulative alpha of timestep t (Ho et al. 2020, arXiv 2006.11239). Latents are
(b, c, h, w), timesteps (b,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from worker.core.families.network import NoiseSettings
from worker.core.words import LossWeighting, PredictionType


@dataclass(frozen=True, slots=True)
class Diffusion:
    """The process of a base model: cumulative alphas (timesteps,), fp32; a level is a timestep."""

    alphas: Tensor
    prediction: PredictionType
    settings: NoiseSettings

    @classmethod
    def of(
        cls,
        scheduler_config: Mapping[str, Any],
        settings: NoiseSettings,
        *,
        prediction: str,
        device: torch.device | str,
    ) -> Diffusion:
        """The process of the base's scheduler config, zero-terminal-SNR rescaling included (Lin et
        al. 2023, arXiv 2305.08891)."""
        scheduler = DDPMScheduler.from_config(dict(scheduler_config))
        alphas = scheduler.alphas_cumprod.to(device, torch.float32)
        return cls(alphas, PredictionType(prediction), settings)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) timesteps, one from each of equally likely parts."""
        focus = self.settings.noise_focus
        return stratified_timesteps(count, len(self.alphas), generator, focus=focus)

    def middle_levels(self, count: int, *, strata: int = 1, place: int = 0) -> Tensor:
        """(count,) timesteps: the middles of equal parts of the schedule."""
        middles = (torch.arange(count) * strata + place) * 2 + 1
        return middles * len(self.alphas) // (2 * count * strata)

    def alpha(self, timesteps: Tensor) -> Tensor:
        """(b, 1, 1, 1), to multiply latents with."""
        return self.alphas[timesteps].view(-1, 1, 1, 1)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a), (b,); zero at the end of a rescaled schedule."""
        alpha = self.alphas[timesteps]
        return alpha / (1 - alpha)

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t: the latents with noise added."""
        alpha = self.alpha(levels)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noise e, or v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans & Ho 2022, arXiv
        2202.00512)."""
        if self.prediction is PredictionType.EPSILON:
            return noise
        alpha = self.alpha(levels)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents

    def weights(self, levels: Tensor) -> Tensor | None:
        """The weight of each sample by its noise level (b,); None when all weights are 1."""
        weighting = self.settings.loss_weighting
        if weighting is LossWeighting.MIN_SNR:
            return min_snr_weights(self.snr(levels), self.settings.snr_gamma, self.prediction)
        if weighting is LossWeighting.DEBIASED:
            return debiased_weights(self.snr(levels), self.prediction)
        return None


def stratified_timesteps(
    count: int, total: int, generator: torch.Generator, *, focus: float = 0.0
) -> Tensor:
    """(count,) timesteps, one from each of `count` equally likely parts of 0 … total - 1.

    Uniform like independent draws, with less noise between batches (Kingma et al. 2021,
    arXiv 2107.00630, appendix I.1). `focus` from -1 to 1 gives the share x = t / total the density
    k x^(k - 1) with k = 1 + 2 focus, mirrored below 0: at 0.5 it rises like x, at 1 like x². The
    form is ours; Esser et al. 2024 (arXiv 2403.03206) compare others.
    """
    position = torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)
    if focus:
        share, power = position / count, 1 / (1 + 2 * abs(focus))
        share = share**power if focus > 0 else 1 - (1 - share) ** power
        position = share * count
    return (position * total / count).long().clamp(max=total - 1)


def min_snr_weights(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v, (b,)
    (Hang et al. 2023, arXiv 2303.09556)."""
    if prediction is PredictionType.EPSILON:
        return (gamma / snr).clamp(max=1.0)  # at SNR 0 this is 1, the limit
    return snr.clamp(max=gamma) / (snr + 1)


def debiased_weights(snr: Tensor, prediction: PredictionType) -> Tensor:
    """1 / sqrt(SNR) for epsilon (Yu et al. 2023, arXiv 2310.08442), and the same loss for v, (b,).

    An error of v is an error of epsilon times sqrt((SNR + 1) / SNR), so v's weight is
    sqrt(SNR) / (SNR + 1). Near SNR 0, where epsilon's grows without end, it stays at 100.
    """
    if prediction is PredictionType.EPSILON:
        return snr.clamp(min=1e-4).rsqrt()
    return snr.sqrt() / (snr + 1)
