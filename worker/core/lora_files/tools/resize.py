"""Resizing an adapter: each change is replaced by its best approximation of a lower rank."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.combine import Progress, ToolResult, check_rank
from worker.core.lora_files.tools.lowrank import lowrank_module, spectrum_of_product
from worker.core.lora_files.tools.stack import ToolError, layers_of


@dataclass(frozen=True)
class ResizeOptions:
    """Exactly one of `rank` and `energy` (the share to keep, above 0 and at most 1).

    `dynamic`: with `energy`, each module gets the smallest sufficient rank. Otherwise all modules
    get the smallest rank that is sufficient for all of them, because diffusers reads one alpha for
    all attention layers and files with one rank are read the same everywhere.
    """

    rank: int | None = None
    energy: float | None = None
    dynamic: bool = False


def resize_adapter(
    adapter: LoraAdapter,
    options: ResizeOptions,
    *,
    on_module: Progress = lambda done, total: None,
) -> ToolResult:
    """The adapter at a lower rank, with how much each module keeps; the metadata is unchanged.

    `on_module(done, total)` may raise to stop. Raises ToolError with a sentence.
    """
    check_resize_options(options)
    largest = max(module.rank for module in adapter.modules)
    if options.rank is not None and options.rank > largest:
        raise ToolError(
            f"The adapter already has rank {largest}. Choose a rank from 1 to {largest}."
        )
    layers = layers_of([LoadedAdapter("the adapter", adapter)])
    spectra = []
    for done, layer in enumerate(layers, start=1):
        with one_thread():
            spectra.append(spectrum_of_product(*layer.factors()))
        on_module(done, len(layers))
    target_ranks = [
        options.rank if options.rank is not None else spectrum.rank_for(options.energy or 1.0)
        for spectrum in spectra
    ]
    if not options.dynamic:
        target_ranks = [max(target_ranks)] * len(target_ranks)
    found = [
        lowrank_module(layer.component, layer.path, spectrum, rank, layer.shape)
        for layer, spectrum, rank in zip(layers, spectra, target_ranks, strict=True)
    ]
    return ToolResult.of(found, adapter.metadata)


def check_resize_options(options: ResizeOptions) -> None:
    """Raise ToolError if the settings are not valid for a resize."""
    if (options.rank is None) == (options.energy is None):
        raise ToolError("Choose either a rank or a share of the energy to keep.")
    if options.rank is not None:
        check_rank(options.rank)
        if options.dynamic:
            raise ToolError(
                "A separate rank for each module needs a share of the energy to keep, not a rank."
            )
    if options.energy is not None and not 0 < options.energy <= 1:
        raise ToolError(
            f"The energy to keep must be above 0 and at most 1, not {options.energy:g}."
        )
