"""The noise of a batch, and the error of a prediction; latents are (b, c, h, w)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from worker.core.training.config import Loss, LossWeighting, PredictionType, TrainConfig


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The cumulative alphas of a base model, (timesteps,) in fp32."""

    alphas: Tensor

    @classmethod
    def of(cls, scheduler_config: Mapping[str, Any], *, device: str) -> "NoiseSchedule":
        """The schedule of the base's scheduler config, zero-terminal-SNR rescaling included (Lin et
        al. 2023, arXiv 2305.08891)."""
        scheduler = DDPMScheduler.from_config(dict(scheduler_config))
        return cls(scheduler.alphas_cumprod.to(device, torch.float32))

    def __len__(self) -> int:
        return len(self.alphas)

    def alpha(self, timesteps: Tensor) -> Tensor:
        """(b, 1, 1, 1), to multiply latents with."""
        return self.alphas[timesteps].view(-1, 1, 1, 1)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a), (b,); zero at the end of a rescaled schedule."""
        alpha = self.alphas[timesteps]
        return alpha / (1 - alpha)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t: the latents with noise added."""
        alpha = self.alpha(timesteps)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = sqrt(a) e - sqrt(1 - a) x_0 (Salimans & Ho 2022, arXiv 2202.00512)."""
        alpha = self.alpha(timesteps)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def sample_noise(shape: torch.Size, generator: torch.Generator, config: TrainConfig) -> Tensor:
    """Normal noise (b, c, h, w), with the noise options of the config.

    Noise offset: a random shift of each channel (crosslabs.org, "Diffusion With Offset Noise",
    2023), so that the mean brightness can be learned.
    """
    noise = torch.randn(shape, generator=generator)
    if config.multires_noise_discount is not None:
        noise = multires_noise(noise, generator, discount=config.multires_noise_discount)
    if config.noise_offset:
        shift = torch.randn((*shape[:2], 1, 1), generator=generator)
        noise = noise + config.noise_offset * shift
    return noise


def multires_noise(noise: Tensor, generator: torch.Generator, *, discount: float) -> Tensor:
    """Noise (b, c, h, w) with ever coarser layers added, each weaker by `discount`, at variance 1.

    Whitaker 2023, "Multi-Resolution Noise for Diffusion Model Training" (wandb.ai): each layer is 2
    to 4 times as coarse as the last and stretched over the image.
    """
    total, (height, width) = noise.clone(), noise.shape[-2:]
    coarse_height, coarse_width, weight = float(height), float(width), 1.0
    while min(coarse_height, coarse_width) > 1:
        factor = 2 + 2 * float(torch.rand((), generator=generator))
        coarse_height, coarse_width = coarse_height / factor, coarse_width / factor
        weight *= discount
        size = (max(1, int(coarse_height)), max(1, int(coarse_width)))
        layer = torch.randn((*noise.shape[:2], *size), generator=generator)
        total += weight * F.interpolate(
            layer, (height, width), mode="bilinear", align_corners=False
        )
    return total / total.std()


def level_weights(snr: Tensor, config: TrainConfig, prediction: PredictionType) -> Tensor | None:
    """The weight of each sample by its noise level (b,); None when all weights are 1."""
    if config.loss_weighting is LossWeighting.MIN_SNR:
        return min_snr_weights(snr, config.snr_gamma, prediction)
    if config.loss_weighting is LossWeighting.DEBIASED:
        return debiased_weights(snr, prediction)
    return None


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


def elementwise_error(predicted: Tensor, target: Tensor, config: TrainConfig) -> Tensor:
    """The error of each element in fp32, in the shape of both inputs."""
    difference = predicted.float() - target.float()
    if config.loss is Loss.HUBER:
        return pseudo_huber(difference, config.huber_delta)
    return difference.square()


def pseudo_huber(difference: Tensor, delta: float) -> Tensor:
    """2 d (sqrt(x² + d²) - d): x² near nothing, 2 d |x| far away, as sd-scripts scales it
    (Khrapov et al. 2024, arXiv 2403.16728)."""
    squared = difference.square()
    return (
        2 * delta * squared / ((squared + delta**2).sqrt() + delta)
    )  # avoids a small difference of roots


def mean_loss(errors: Tensor, weights: Tensor | None, mask: Tensor | None) -> Tensor:
    """The loss of a batch: errors (b, c, h, w), weights (b,), mask (b, 1, h, w) in 0 to 1.

    An image counts in proportion to its unmasked area.
    """
    if mask is not None:
        errors = errors * mask
    each = errors.mean(dim=(1, 2, 3))
    return each.mean() if weights is None else (each * weights).mean()
