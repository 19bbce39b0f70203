"""`brushwork adapters merge A:0.8 B:-0.5 --out FILE`: merge several LoRA files into one."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import require_target
from app.cli.adapter_files.stacks import (
    listed,
    ranks,
    read_stack,
    write_adapter,
)
from worker.core.lora_files.tools.combine import MergeOptions, check_merge_options, merge_adapters
from worker.core.words import MergeMethod

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the merged file and print its approximation error."""
    method = MergeMethod(arguments.method)
    options = MergeOptions(method, arguments.rank, arguments.density, arguments.seed)
    check_merge_options(options)
    require_target(arguments.out, *(one.path for one in arguments.adapters))
    stack = read_stack(arguments.adapters)
    made = merge_adapters(stack, options)
    description = f"Merged ({method}) from {listed(stack)}."
    sources = [one.adapter for one in stack]
    write_adapter(made.adapter, sources, arguments, description=description)
    error = made.report.relative_error
    exact = "exact" if method is MergeMethod.LINEAR else f"relative error {error:.2%}"
    print(
        f"Wrote {arguments.out}: {listed(stack)}; {len(made.adapter.modules)} modules, "
        f"{ranks(made.report)}, {exact}."
    )
    return 0
