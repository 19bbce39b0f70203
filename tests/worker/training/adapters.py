"""Adapters put into a small base, given random values, and looked at through its UNet."""

import torch

from worker.core.bases.load import LoadedBase
from worker.core.inference.sampling import predict
from worker.core.training.adapter.lora import Lora, inject_adapter
from worker.core.training.config import TrainConfig
from worker.core.training.data.text import LiveCaptionEncoder


def fresh_adapter(base: LoadedBase, **changes: object) -> Lora:
    """An adapter of rank 2 and strength 2 in the UNet and the text encoders."""
    settings = {"rank": 2, "alpha": 4, "train_text_encoder": True} | changes
    config = TrainConfig.model_validate(settings)
    generator = torch.Generator().manual_seed(0)
    return inject_adapter(
        base.unet, base.text_encoders, config, generator=generator, family=base.info.family
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
    channels = base.unet.config.in_channels
    latents = torch.randn(2, channels, 8, 8, generator=generator)
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    with torch.set_grad_enabled(gradients):
        text = LiveCaptionEncoder(base, device="cpu")(["castle", ""])
        return predict(base.unet, latents, torch.tensor([10, 800]), text, time_ids)
