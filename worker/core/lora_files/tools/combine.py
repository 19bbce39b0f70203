"""Several adapters made into one: by concatenation (exact), SVD, TIES or DARE."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from worker.core.lora_files.canonical import MAX_RANK, Adapter, LoraModule
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.lowrank import (
    Kept,
    Report,
    Spectrum,
    lora,
    of_matrix,
    of_product,
    one_thread,
)
from worker.core.lora_files.tools.stack import Layer, ToolError, layers_of
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS

Progress = Callable[[int, int], None]


class MergeMethod(StrEnum):
    """How adapters are made into one."""

    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"


@dataclass(frozen=True)
class MergeOptions:
    """`rank` of the result (not for LINEAR, whose ranks add up).

    `density`: the share of each change that TIES and DARE keep; `seed`: which ones DARE keeps.
    """

    method: MergeMethod = MergeMethod.LINEAR
    rank: int | None = None
    density: float = 0.5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Made:
    """A new adapter and how near it is to the exact weight change."""

    adapter: Adapter
    report: Report


def merge(
    stack: Sequence[LoadedAdapter],
    options: MergeOptions,
    *,
    on_module: Progress = lambda done, total: None,
) -> Made:
    """One adapter for the whole stack; at no time more than one layer's full change is in memory.

    LINEAR: dW = Σ wᵢ dWᵢ exactly. SVD: the nearest change of `rank` to that sum. TIES and DARE:
    the nearest of `rank` to what their formula makes of the full changes. `on_module(done, total)`
    may raise to stop. Raises ToolError with a sentence.
    """
    check_options(options)
    if not 2 <= len(stack) <= MAX_MERGE_ADAPTERS:
        raise ToolError(
            f"Choose 2 to {MAX_MERGE_ADAPTERS} adapters to merge; this is {len(stack)}."
        )
    layers = layers_of(stack)
    if options.method is MergeMethod.LINEAR:
        _check_concatenated(layers)
    rank = _rank(options, layers)
    modules, kept = [], []
    is_thin = options.method in (MergeMethod.LINEAR, MergeMethod.SVD)
    for done, layer in enumerate(layers, start=1):
        with one_thread() if is_thin else nullcontext():
            module, how = _merged(layer, options, rank)
        modules.append(module)
        kept.append(how)
        on_module(done, len(layers))
    return Made(Adapter(tuple(modules)), Report(tuple(kept)))


def check_options(options: MergeOptions) -> None:
    """Raise ToolError for settings that no merge can have."""
    if options.method is not MergeMethod.LINEAR:
        check_rank(options.rank)
    if not 0 < options.density <= 1:
        raise ToolError(f"The density is {options.density:g}; it is a share above 0 and up to 1.")


def check_rank(rank: int | None) -> None:
    """Raise ToolError unless `rank` is one that programs read."""
    if rank is None:
        raise ToolError("Choose the rank of the result.")
    if not 1 <= rank <= MAX_RANK:
        raise ToolError(f"The rank is {rank}; ranks from 1 to {MAX_RANK:,} are accepted.")


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """TIES merging of weighted changes of one layer (Yadav et al. 2023, arXiv 2306.01708).

    Trim: each change keeps its `density` largest entries. Elect: every entry gets the sign of the
    sum. Merge: the mean of those trimmed changes that have this sign there.
    """
    trimmed = [_largest(change, density) for change in changes]
    sign = torch.sign(torch.stack(trimmed).sum(0))
    total = torch.zeros_like(sign)
    count = torch.zeros_like(sign)
    for change in trimmed:
        agrees = (torch.sign(change) == sign) & (sign != 0)
        total += torch.where(agrees, change, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def dare(changes: Sequence[Tensor], density: float, seeds: Sequence[int]) -> Tensor:
    """The sum of changes after DARE (Yu et al. 2023, arXiv 2311.03099).

    Each entry is dropped with probability 1 - density; what stays is divided by density, so that
    the expected change is the whole one. The same seeds give the same result.
    """
    total = torch.zeros_like(changes[0])
    for change, seed in zip(changes, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        stays = torch.rand(change.shape, generator=generator) < density
        total += torch.where(stays, change / density, 0.0)
    return total


def dare_seed(seed: int, adapter: int, key: str) -> int:
    """The seed of one adapter's mask in one layer, whatever other layers there are."""
    digest = hashlib.sha256(f"{seed} {adapter} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _merged(layer: Layer, options: MergeOptions, rank: int) -> tuple[LoraModule, Kept]:
    if options.method is MergeMethod.LINEAR:
        up, down = layer.factors()
        module = lora(layer.component, layer.path, up, down, layer.shape)
        return module, Kept(layer.key, module.rank, 1.0, 1.0)
    spectrum = _spectrum(layer, options, rank)
    up, down = spectrum.factors(rank)
    module = lora(layer.component, layer.path, up, down, layer.shape)
    return module, Kept(layer.key, rank, spectrum.kept(rank), spectrum.energy)


def _spectrum(layer: Layer, options: MergeOptions, rank: int) -> Spectrum:
    if options.method is MergeMethod.SVD:
        return of_product(*layer.factors())
    changes = [part.delta() for part in layer.parts]
    if options.method is MergeMethod.TIES:
        return of_matrix(ties(changes, options.density), directions=rank)
    seeds = [dare_seed(options.seed, part.index, layer.key) for part in layer.parts]
    return of_matrix(dare(changes, options.density, seeds), directions=rank)


def _rank(options: MergeOptions, layers: Sequence[Layer]) -> int:
    """The one rank of all modules: what was asked for, or less when no layer can have that much."""
    if options.rank is None:
        return 0
    if options.method is MergeMethod.SVD:
        return min(options.rank, max(_concatenated(layer) for layer in layers))
    return min(options.rank, max(min(layer.shape[0], _inputs(layer)) for layer in layers))


def _inputs(layer: Layer) -> int:
    return int(torch.Size(layer.shape[1:]).numel())


def _concatenated(layer: Layer) -> int:
    return sum(part.module.rank for part in layer.parts)


def _check_concatenated(layers: Sequence[Layer]) -> None:
    largest = max(_concatenated(layer) for layer in layers)
    if largest > MAX_RANK:
        raise ToolError(
            f"Put side by side the ranks add up to {largest:,}; programs read up to {MAX_RANK:,}. "
            "Choose the SVD method with a rank instead."
        )


def _largest(change: Tensor, density: float) -> Tensor:
    """The entries of a change that are among its `density` largest by size, else 0."""
    count = max(1, round(density * change.numel()))
    if count >= change.numel():
        return change
    sizes = change.abs()
    smallest = sizes.flatten().kthvalue(change.numel() - count + 1).values
    return torch.where(sizes >= smallest, change, 0.0)
