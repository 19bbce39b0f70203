"""The optimizer, its learning rate, and the moving average of what it makes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worker.training.config import LrScheduler, TrainConfig
from worker.training.lora import Lora

EMA_WARMUP = 10


def build_optimizer(lora: Lora, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a group each for UNet and text."""
    text_rate = config.text_encoder_learning_rate or config.learning_rate
    groups = [
        {"params": lora.parameters(text=False), "lr": config.learning_rate},
        {"params": lora.parameters(text=True), "lr": text_rate},
    ]
    for group in groups:
        group["base_lr"] = group["lr"]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        weight_decay=config.weight_decay,
        fused=True,
    )


def lr_factor(step: int, config: TrainConfig) -> float:
    """What the rates are multiplied with in the step after `step` finished ones, 0 to 1.

    A function of the step alone, so that a resumed run needs no state for it.
    """
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    if config.lr_scheduler is LrScheduler.COSINE:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if config.lr_scheduler is LrScheduler.LINEAR:
        return max(0.0, 1 - progress)
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Give every group its own rate times the factor; returns the UNet's."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


class MovingAverage:
    """An exponential moving average of the trained matrices, by name."""

    def __init__(self, parameters: dict[str, nn.Parameter], *, decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.weights = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after this step; the first ones count little."""
        decay = min(self._decay, (1 + step) / (EMA_WARMUP + step))
        current = [self._parameters[name].detach() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages where the trained matrices are, for as long as the context lasts."""
        trained = {name: self._parameters[name].data for name in self.weights}
        for name, average in self.weights.items():
            self._parameters[name].data = average
        try:
            yield
        finally:
            for name, data in trained.items():
                self._parameters[name].data = data

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take up the averages of a checkpoint."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
