"""Merging several adapters into one: by concatenation (exact), SVD, TIES or DARE."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import MAX_RANK, LoraAdapter, LoraModule
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.lowrank import (
    FidelityReport,
    ModuleFidelity,
    Spectrum,
    lowrank_module,
    make_module,
    spectrum_of_matrix,
    spectrum_of_product,
)
from worker.core.lora_files.tools.stack import Layer, ToolError, layers_of
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS
from worker.core.words import MergeMethod

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergeOptions:
    """Settings of a merge.

    `rank`: that of the result (not for LINEAR, where the ranks add up). `density`: the share of
    each change that TIES and DARE keep. `seed`: selects the entries that DARE keeps.
    """

    method: MergeMethod = MergeMethod.LINEAR
    rank: int | None = None
    density: float = 0.5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ToolResult:
    """A new adapter, and how close it is to the exact weight change."""

    adapter: LoraAdapter
    report: FidelityReport

    @classmethod
    def of(
        cls, found: Sequence[tuple[LoraModule, ModuleFidelity]], metadata: Mapping[str, str]
    ) -> ToolResult:
        """The adapter of these modules, of which there is at least one."""
        modules, fidelity = zip(*found, strict=True)
        return cls(LoraAdapter(modules, metadata), FidelityReport(fidelity))


def merge_adapters(
    stack: Sequence[LoadedAdapter],
    options: MergeOptions,
    *,
    on_module: Progress = lambda done, total: None,
) -> ToolResult:
    """One adapter with the effect of the whole stack; only one full weight change is in memory.

    LINEAR: dW = Σ wᵢ dWᵢ exactly. SVD: the best approximation of that sum with `rank`. TIES and
    DARE: the best approximation with `rank` of the result of their formula. `on_module(done,
    total)` may raise to stop. Raises ToolError with a sentence.
    """
    check_merge_options(options)
    if not 2 <= len(stack) <= MAX_MERGE_ADAPTERS:
        raise ToolError(f"Choose 2 to {MAX_MERGE_ADAPTERS} adapters to merge, not {len(stack)}.")
    layers = layers_of(stack)
    if options.method is MergeMethod.LINEAR:
        _check_total_rank(layers)
    rank = _common_rank(options, layers)
    found = []
    is_thin = options.method in (MergeMethod.LINEAR, MergeMethod.SVD)
    for done, layer in enumerate(layers, start=1):
        with one_thread(when=is_thin):
            found.append(_merge_layer(layer, options, rank))
        on_module(done, len(layers))
    return ToolResult.of(found, {})


def check_merge_options(options: MergeOptions) -> None:
    """Raise ToolError if the settings are not valid for a merge."""
    if options.method is not MergeMethod.LINEAR:
        check_rank(options.rank)
    if not 0 < options.density <= 1:
        raise ToolError(f"The density must be above 0 and at most 1, not {options.density:g}.")


def check_rank(rank: int | None) -> None:
    """Raise ToolError unless other programs can read adapters of this rank."""
    if rank is None:
        raise ToolError("Choose the rank of the result.")
    if not 1 <= rank <= MAX_RANK:
        raise ToolError(f"The rank must be from 1 to {MAX_RANK:,}, not {rank}.")


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """The TIES merge of the weighted changes of one layer (Yadav et al. 2023, arXiv 2306.01708).

    Trim: keep the `density` largest entries of each change. Elect: give every entry the sign of
    the sum. Merge: average the trimmed changes that have this sign.
    """
    trimmed = [_keep_largest(change, density) for change in changes]
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

    Each entry is dropped with probability 1 - density. The others are divided by density, so that
    the expected value is the full change. The same seeds give the same result.
    """
    total = torch.zeros_like(changes[0])
    for change, seed in zip(changes, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        is_kept = torch.rand(change.shape, generator=generator) < density
        total += torch.where(is_kept, change / density, 0.0)
    return total


def dare_seed(seed: int, adapter: int, key: str) -> int:
    """The seed of one adapter's mask in one layer; it does not depend on other layers."""
    digest = hashlib.sha256(f"{seed} {adapter} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _merge_layer(
    layer: Layer, options: MergeOptions, rank: int
) -> tuple[LoraModule, ModuleFidelity]:
    if options.method is MergeMethod.LINEAR:
        up, down = layer.factors()
        module = make_module(layer.component, layer.path, up, down, layer.shape)
        return module, ModuleFidelity(layer.key, module.rank, 1.0, 1.0)
    spectrum = _layer_spectrum(layer, options, rank)
    return lowrank_module(layer.component, layer.path, spectrum, rank, layer.shape)


def _layer_spectrum(layer: Layer, options: MergeOptions, rank: int) -> Spectrum:
    if options.method is MergeMethod.SVD:
        return spectrum_of_product(*layer.factors())
    changes = [change.delta() for change in layer.changes]
    if options.method is MergeMethod.TIES:
        return spectrum_of_matrix(ties(changes, options.density), directions=rank)
    seeds = [dare_seed(options.seed, change.index, layer.key) for change in layer.changes]
    return spectrum_of_matrix(dare(changes, options.density, seeds), directions=rank)


def _common_rank(options: MergeOptions, layers: Sequence[Layer]) -> int:
    """The rank of all modules: the chosen one, or the largest that a layer can have if lower."""
    if options.rank is None:
        return 0
    if options.method is MergeMethod.SVD:
        return min(options.rank, max(_total_rank(layer) for layer in layers))
    return min(options.rank, max(min(layer.shape[0], _input_size(layer)) for layer in layers))


def _input_size(layer: Layer) -> int:
    return int(torch.Size(layer.shape[1:]).numel())


def _total_rank(layer: Layer) -> int:
    return sum(change.module.rank for change in layer.changes)


def _check_total_rank(layers: Sequence[Layer]) -> None:
    largest = max(_total_rank(layer) for layer in layers)
    if largest > MAX_RANK:
        raise ToolError(
            f"The ranks add up to {largest:,} with the linear method, but programs read at most "
            f"{MAX_RANK:,}. Choose the SVD method with a rank instead."
        )


def _keep_largest(change: Tensor, density: float) -> Tensor:
    """The change with all but its `density` largest entries set to 0."""
    count = max(1, round(density * change.numel()))
    if count >= change.numel():
        return change
    sizes = change.abs()
    smallest = sizes.flatten().kthvalue(change.numel() - count + 1).values
    return torch.where(sizes >= smallest, change, 0.0)
