"""Chooses the fastest number of CPU threads; for a small base that is rarely all of them.

An operation of a small base takes tens of microseconds, as long as waking a waiting core. Measured
on 2 cores with `starter`: a training step of batch 8 takes 181 ms on one thread and 347 ms on two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from worker.core.bases.inspect import vae_factor
from worker.core.bases.load import LoadedBase, encode_prompts
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates

SMALL_PARAMETERS = 150_000_000  # UNet parameters; above it a forward pass on a CPU takes seconds
MAX_TIME_RATIO = 0.95
PROBES = 3
SIZES = 6


def use_fastest_threads(base: LoadedBase, *, batch_size: int, at_most: int) -> int:
    """Set torch to the number of threads that runs this base's UNet fastest; returns the number.

    Times a forward pass with 1, 2, 4 … up to `at_most` threads and stops when more do not help.
    """
    if at_most > 1 and is_small(base.info.parameters):
        at_most = _find_fastest(base, batch_size, at_most)
    torch.set_num_threads(at_most)
    return at_most


def is_small(parameters: Mapping[str, int]) -> bool:
    """True when a forward pass on a CPU is quick; a large base always uses all threads.

    `parameters`: the number of parameters of each component.
    """
    return parameters.get("unet", 0) < SMALL_PARAMETERS


def _find_fastest(base: LoadedBase, batch_size: int, at_most: int) -> int:
    best, shortest = 1, _time_forward(base, batch_size, threads=1)
    for threads in _thread_counts(at_most):
        seconds = _time_forward(base, batch_size, threads=threads)
        if seconds > MAX_TIME_RATIO * shortest:
            break
        best, shortest = threads, seconds
    return best


def _thread_counts(at_most: int) -> Iterator[int]:
    threads = 2
    while threads < at_most:
        yield threads
        threads *= 2
    yield at_most


def _time_forward(base: LoadedBase, batch_size: int, *, threads: int) -> float:
    """The shortest of a few forward passes after a warm-up."""
    torch.set_num_threads(threads)
    shortest = float("inf")
    network = network_of(base.info.family)
    with torch.inference_mode():
        inputs = _make_inputs(base, batch_size)
        for probe in range(1 + PROBES):
            started = time.perf_counter()
            network.predict(base.denoiser, *inputs)
            if probe:
                shortest = min(shortest, time.perf_counter() - started)
    return shortest


def _make_inputs(base: LoadedBase, batch_size: int) -> tuple[Tensor, Tensor, TextStates, Tensor]:
    """Random latents at the base's native size, with the other inputs of its denoiser."""
    config, dtype = base.denoiser.config, base.denoiser.dtype
    side = base.info.resolution // vae_factor(base.vae.config)
    latents = torch.randn(batch_size, config.in_channels, side, side, dtype=dtype)
    levels = torch.zeros(batch_size, dtype=torch.long)
    text = encode_prompts(base, [""] * batch_size, device="cpu")
    return latents, levels, text, torch.zeros(batch_size, SIZES, dtype=dtype)
