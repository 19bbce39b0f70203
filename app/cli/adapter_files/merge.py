"""`brushwork adapters merge A:0.8 B:-0.5 --out FILE`: merge several LoRA files into one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import require_target
from app.cli.adapter_files.stacks import (
    WEIGHTED,
    add_output,
    listed,
    ranks,
    read_stack,
    weighted_file,
    write_adapter,
)
from worker.core.words import MergeMethod, values

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the files with their weights, and the merge options."""
    parser.add_argument("adapters", nargs="+", type=weighted_file, metavar=WEIGHTED)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--method",
        choices=values(MergeMethod),
        default="linear",
        help="linear: exact, ranks add up; svd: best at a rank; ties, dare: as in their papers",
    )
    parser.add_argument("--rank", type=int, help="rank of the result, for svd, ties and dare")
    parser.add_argument(
        "--density", type=float, default=0.5, help="share that ties and dare keep (0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of dare (0)")
    add_output(parser)


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the merged file and print its approximation error."""
    from worker.core.lora_files.tools.combine import (
        MergeOptions,
        check_merge_options,
        merge_adapters,
    )
    from worker.core.words import MergeMethod

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
