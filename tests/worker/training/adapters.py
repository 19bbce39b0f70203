"""Adapters put into a small base, given random values, and looked at through its UNet."""

import torch

from worker.core.bases.load import LoadedBase
from worker.core.families.networks import network_of
from worker.core.families.stable_diffusion.diffusion import Diffusion
from worker.core.training.adapter.lora import Lora, inject_adapter
from worker.core.training.config import TrainConfig
from worker.core.training.data.text import LiveCaptionEncoder
from worker.core.words import PredictionType


def fresh_adapter(base: LoadedBase, **changes: object) -> Lora:
    """An adapter of rank 2 and strength 2 in the UNet and the text encoders."""
    settings = {"rank": 2, "alpha": 4, "train_text_encoder": True} | changes
    config = TrainConfig.model_validate(settings)
    generator = torch.Generator().manual_seed(0)
    return inject_adapter(
        base.denoiser, base.text_encoders, config, generator=generator, family=base.info.family
    )


def diffusion(timesteps: int, config: TrainConfig | None = None) -> Diffusion:
    """A noise process of so many timesteps."""
    return Diffusion(
        torch.linspace(0.99, 0.01, timesteps), PredictionType.EPSILON, config or TrainConfig()
    )


def scramble(lora: Lora) -> None:
    """Random values in every matrix, as after a training."""
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.parameters():
        values = torch.randn(parameter.shape, generator=generator) * 0.1
        parameter.data = values.to(parameter.dtype)


def look(base: LoadedBase, *, gradients: bool = False) -> torch.Tensor:
    """The UNet's predictions for two fixed latents."""
    generator = torch.Generator().manual_seed(2)
    channels = base.denoiser.config.in_channels
    latents = torch.randn(2, channels, 8, 8, generator=generator)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    with torch.set_grad_enabled(gradients):
        text = LiveCaptionEncoder(base, device="cpu")(["castle", ""])
        network = network_of(base.info.family)
        return network.predict(base.denoiser, latents, torch.tensor([10, 800]), text, sizes)
