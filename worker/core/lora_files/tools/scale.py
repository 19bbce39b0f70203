"""Scaling an adapter in the blocks of the UNet, so that a file needs no block weights any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.parts import Part, part_of
from worker.core.lora_files.tools.combine import Progress, ToolResult
from worker.core.lora_files.tools.lowrank import ModuleFidelity
from worker.core.lora_files.tools.stack import ToolError
from worker.core.lora_files.weights import weight_problem


def scale_blocks(
    adapter: LoraAdapter,
    factors: Mapping[Part, float],
    *,
    on_module: Progress = lambda done, total: None,
) -> ToolResult:
    """The adapter with its changes multiplied by the factor of their part; absent ones are 1.

    Exact: the up matrix is multiplied, so that ranks and alphas stay; changes with factor 0 are
    left out. `on_module(done, total)` may raise to stop. Raises ToolError with a sentence.
    """
    check_factors(factors)
    modules = []
    for done, module in enumerate(adapter.modules, start=1):
        factor = factors.get(part_of(module.key), 1.0)
        if factor != 0:
            modules.append(module if factor == 1 else replace(module, up=module.up * factor))
        on_module(done, len(adapter.modules))
    if not modules:
        raise ToolError("Nothing of the adapter would be left. Give a block another factor than 0.")
    exact = [(one, ModuleFidelity(one.key, one.rank, 1.0, 1.0)) for one in modules]
    return ToolResult.of(exact, adapter.metadata)


def check_factors(factors: Mapping[Part, float]) -> None:
    """Raise ToolError unless the factors are weights, and one of them changes something."""
    for factor in factors.values():
        if problem := weight_problem(factor):
            raise ToolError(problem)
    if all(factor == 1 for factor in factors.values()):
        raise ToolError("All factors are 1, which changes nothing. Give a block another factor.")
