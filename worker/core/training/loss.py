"""The noise of a batch, and the error of a prediction; latents are (b, c, h, w)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.core.training.config import Loss, TrainConfig


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
