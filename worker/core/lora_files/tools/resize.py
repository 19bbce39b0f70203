"""An adapter made smaller: each change by the nearest one of a lower rank."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.lora_files.canonical import Adapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.combine import Made, Progress, check_rank
from worker.core.lora_files.tools.lowrank import Kept, Report, lora, of_product, one_thread
from worker.core.lora_files.tools.stack import ToolError, layers_of


@dataclass(frozen=True)
class ResizeOptions:
    """Exactly one of `rank` and `energy` (the share to keep, above 0 and at most 1).

    `dynamic`: with `energy`, every module gets the smallest rank of its own. Otherwise all get the
    smallest that is enough for each of them, because diffusers reads one alpha for all attention
    layers, and files of one rank are read alike everywhere.
    """

    rank: int | None = None
    energy: float | None = None
    dynamic: bool = False


def resize(
    adapter: Adapter,
    options: ResizeOptions,
    *,
    on_module: Progress = lambda done, total: None,
) -> Made:
    """The adapter at a lower rank, with what each module kept; its metadata stays.

    `on_module(done, total)` may raise to stop. Raises ToolError with a sentence.
    """
    check_options(options)
    largest = max(module.rank for module in adapter.modules)
    if options.rank is not None and options.rank > largest:
        raise ToolError(
            f"The adapter's rank is {largest} already; choose a rank from 1 to {largest}."
        )
    layers = layers_of([LoadedAdapter("the adapter", adapter)])
    spectra = []
    for done, layer in enumerate(layers, start=1):
        with one_thread():
            spectra.append(of_product(*layer.factors()))
        on_module(done, len(layers))
    wanted = [
        options.rank if options.rank is not None else spectrum.rank_for(options.energy or 1.0)
        for spectrum in spectra
    ]
    if not options.dynamic:
        wanted = [max(wanted)] * len(wanted)
    modules, kept = [], []
    for layer, spectrum, rank in zip(layers, spectra, wanted, strict=True):
        modules.append(lora(layer.component, layer.path, *spectrum.factors(rank), layer.shape))
        kept.append(Kept(layer.key, rank, spectrum.kept(rank), spectrum.energy))
    return Made(Adapter(tuple(modules), adapter.metadata), Report(tuple(kept)))


def check_options(options: ResizeOptions) -> None:
    """Raise ToolError for settings that no resize can have."""
    if (options.rank is None) == (options.energy is None):
        raise ToolError("Choose a rank or a share of the energy to keep, one of the two.")
    if options.rank is not None:
        check_rank(options.rank)
        if options.dynamic:
            raise ToolError("Ranks of their own for the modules need a share of the energy.")
    if options.energy is not None and not 0 < options.energy <= 1:
        raise ToolError(
            f"The energy to keep is {options.energy:g}; it is a share above 0 and up to 1."
        )
