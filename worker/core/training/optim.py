"""The optimizer, its learning rate, and the moving average of the weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from transformers.optimization import Adafactor

from worker.core.training.adapter.lora import Lora
from worker.core.training.config import LrScheduler, Optimizer, TrainConfig
from worker.core.training.errors import UnsupportedError

EMA_WARMUP = 10


def build_optimizer(lora: Lora, config: TrainConfig) -> torch.optim.Optimizer:
    """The config's optimizer, with a parameter group for each learning rate.

    AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), the same with 8-bit states (Dettmers et al.
    2022, arXiv 2110.02861), without a schedule (Defazio et al. 2024, arXiv 2405.15682), Prodigy
    (Mishchenko & Defazio 2024, arXiv 2306.06101), Adafactor (Shazeer & Stern 2018, arXiv
    1804.04235). Raises UnsupportedError when this machine lacks the package it needs.
    """
    groups, decay = _parameter_groups(lora, config), config.weight_decay
    if config.optimizer is Optimizer.ADAMW_8BIT:
        return _adamw_8bit(groups, decay)
    if config.optimizer is Optimizer.ADAMW_SCHEDULE_FREE:
        free: torch.optim.Optimizer = AdamWScheduleFree(groups, weight_decay=decay)
        free.train()  # type: ignore[attr-defined]
        return free
    if config.optimizer is Optimizer.PRODIGY:
        return Prodigy(  # type: ignore[no-any-return]
            groups,
            weight_decay=decay,
            use_bias_correction=True,
            safeguard_warmup=config.warmup_steps > 0,
        )
    if config.optimizer is Optimizer.ADAFACTOR:
        return Adafactor(  # type: ignore[no-any-return]
            groups,
            weight_decay=decay,
            scale_parameter=False,  # a zero matrix would stay zero
            relative_step=False,
            warmup_init=False,
        )
    return torch.optim.AdamW(groups, weight_decay=decay, fused=True)


def _parameter_groups(lora: Lora, config: TrainConfig) -> list[dict[str, Any]]:
    """One group for the UNet and one for text, with LoRA+ also for their up matrices (Hayou et al.
    2024, arXiv 2402.12354)."""
    rates = {
        False: config.learning_rate,
        True: config.text_encoder_learning_rate or config.learning_rate,
    }
    groups = []
    for text, rate in rates.items():
        if config.lora_plus_ratio is None:
            groups.append((lora.parameters(text=text), rate))
        else:
            groups.append((lora.parameters(text=text, up=False), rate))
            groups.append((lora.parameters(text=text, up=True), rate * config.lora_plus_ratio))
    return [
        {"params": parameters, "lr": rate, "base_lr": rate}
        for parameters, rate in groups
        if parameters
    ]


def _adamw_8bit(groups: list[dict[str, Any]], decay: float) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UnsupportedError(
            "AdamW 8-bit needs the package bitsandbytes. Install it with "
            "pip install 'brushwork[eightbit]', or choose AdamW."
        ) from error
    return AdamW8bit(groups, weight_decay=decay)  # type: ignore[no-any-return]


def lr_factor(step: int, config: TrainConfig, lengths: Sequence[tuple[int, int]] = ()) -> float:
    """The factor of the rates, 0 to 1, in the step after `step` finished ones.

    It depends on the step alone, so a resumed run needs no state for it. `lengths`: from which step
    on the training has another number of steps, in order. What is left of the schedule is then
    stretched or shortened to the new end, so that the rate does not jump; the warmup stays.
    """
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return (step + 1) / warmup
    done, start, end = 0.0, warmup, config.steps
    for since, steps in lengths:
        if since > step:
            break
        since = max(since, start)
        done += (1 - done) * (since - start) / max(1, end - start)
        start, end = since, steps
    progress = done + (1 - done) * (step - start) / max(1, end - start)
    if config.lr_scheduler is LrScheduler.COSINE:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    if config.lr_scheduler is LrScheduler.COSINE_RESTARTS:
        within = math.fmod(progress * config.lr_cycles, 1.0) if progress < 1 else 1.0
        return 0.5 * (1 + math.cos(math.pi * within))
    if config.lr_scheduler is LrScheduler.LINEAR:
        return max(0.0, 1 - progress)
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to its base rate times the factor; returns the UNet's rate.

    Prodigy multiplies it by the rate `d` that it found so far, so that is what it returns then.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    first = optimizer.param_groups[0]
    return float(first["lr"] * first.get("d", 1.0))


class MovingAverage:
    """An exponential moving average of the trained matrices, by name."""

    def __init__(self, parameters: dict[str, nn.Parameter], *, decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.weights = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after this step; the first ones count little."""
        decay = min(self._decay, (1 + step) / (EMA_WARMUP + step))
        current = [self._parameters[name].detach() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Load the averages of a checkpoint."""
        for name, value in self.weights.items():
            value.copy_(weights[name])


@contextmanager
def swap_weights(
    parameters: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]
) -> Iterator[None]:
    """Replace the trained matrices by others while the context lasts.

    The trained ones are restored bit for bit, so that using an average changes nothing.
    """
    trained = {name: parameters[name].data for name in others}
    for name, other in others.items():
        parameters[name].data = other.to(trained[name].device)
    try:
        yield
    finally:
        for name, data in trained.items():
            parameters[name].data = data


@torch.no_grad()
def schedule_free_averages(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The averages x of schedule-free AdamW; empty for any other optimizer.

    It trains y = (1 - beta) z + beta x, so x = y + (z - y) (1 - 1 / beta). Computed separately: its
    own `eval()` works in place and changes the last bits.
    """
    if not isinstance(optimizer, AdamWScheduleFree):
        return {}
    averages = {name: parameter.detach() for name, parameter in parameters.items()}
    names = {parameter: name for name, parameter in parameters.items()}
    for group in optimizer.param_groups:
        weight = 1 - 1 / group["betas"][0]
        for parameter in group["params"]:
            if "z" in optimizer.state[parameter]:
                z = optimizer.state[parameter]["z"]
                averages[names[parameter]] = torch.lerp(parameter.detach(), z, weight)
    return averages
