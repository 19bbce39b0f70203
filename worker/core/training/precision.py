"""Chooses the precision of a base model, and provides its autocast context."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from worker.core.torch_dtypes import TORCH_DTYPES
from worker.core.training.config import Precision

MIN_SPEEDUP = 1.25
PROBES = 3


def resolve_precision(precision: Precision, *, device: str, probe: Callable[[], None]) -> Precision:
    """The precision that `auto` means here; any other value is returned unchanged.

    A GPU gets bf16 if it supports it, else fp16. On a CPU it depends on the cores: bf16 is faster
    only with hardware support, and small batches gain less. So `probe`, a typical piece of work, is
    timed in both, and bf16 is chosen when it is clearly faster.
    """
    if precision is not Precision.AUTO:
        return precision
    if device.startswith("cuda"):
        return Precision.BF16 if torch.cuda.is_bf16_supported() else Precision.FP16
    if not device.startswith("cpu"):
        return Precision.FP32
    plain, short = _time_probe(probe, Precision.FP32), _time_probe(probe, Precision.BF16)
    return Precision.BF16 if plain > MIN_SPEEDUP * short else Precision.FP32


def autocast(precision: Precision, *, device: str) -> AbstractContextManager[None]:
    """The context for forward passes; fp32 changes nothing."""
    return torch.autocast(
        torch.device(device).type,
        TORCH_DTYPES[precision],
        enabled=precision is not Precision.FP32,
        cache_enabled=False,  # frozen weights are cast already; adapters change each step
    )


def cast_frozen(model: nn.Module, precision: Precision) -> None:
    """Cast the frozen weights to the precision; adapters stay fp32, and int8 rows int8."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(TORCH_DTYPES[precision])


def convolution_probe(latents: torch.Size, channels: int) -> Callable[[], None]:
    """The most common work of a UNet: a 3 x 3 convolution at its largest size, forward and
    backward."""
    x = torch.zeros(latents[0], channels, *latents[2:], requires_grad=True)
    weight = torch.zeros(channels, channels, 3, 3)

    def probe() -> None:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        out = torch.nn.functional.conv2d(x.to(dtype), weight.to(dtype), padding=1)
        torch.autograd.grad(out.sum(), x)

    return probe


def linear_probe(tokens: int, width: int) -> Callable[[], None]:
    """The most common work of a transformer: a linear layer, forward and backward."""
    x = torch.zeros(tokens, width, requires_grad=True)
    weight = torch.zeros(width, width)

    def probe() -> None:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        out = torch.nn.functional.linear(x.to(dtype), weight.to(dtype))
        torch.autograd.grad(out.sum(), x)

    return probe


def denoiser_probe(config: Mapping[str, Any], latents: torch.Size) -> Callable[[], None]:
    """The most common work of a denoiser with this config on latents (b, c, h, w)."""
    if widths := config.get("block_out_channels"):
        return convolution_probe(latents, widths[0])
    width = config.get("dim") or config["num_attention_heads"] * config["attention_head_dim"]
    return linear_probe(latents[0] * latents[2:].numel() // 4, width)  # patches of 2 x 2


def _time_probe(probe: Callable[[], None], precision: Precision) -> float:
    """The shortest of a few runs after a warm-up."""
    best = float("inf")
    with autocast(precision, device="cpu"):
        probe()
        for _ in range(PROBES):
            started = time.perf_counter()
            probe()
            best = min(best, time.perf_counter() - started)
    return best
