"""`brushwork adapters resize IN OUT --rank 8`: reduce the rank of a LoRA file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import require_target
from app.cli.adapter_files.stacks import add_output, ranks, write_adapter

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the files, and the rank or the share of energy to keep."""
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--rank", type=int, help="the new rank of all modules")
    wanted.add_argument(
        "--energy",
        type=float,
        metavar="SHARE",
        help="minimum share of energy per module, such as 0.95",
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="with --energy: an individual rank per module"
    )
    add_output(parser)


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the smaller file and print how much it keeps."""
    from worker.core.lora_files.reading import read_adapter
    from worker.core.lora_files.tools.resize import (
        ResizeOptions,
        check_resize_options,
        resize_adapter,
    )

    options = ResizeOptions(arguments.rank, arguments.energy, arguments.dynamic)
    check_resize_options(options)
    require_target(arguments.out, arguments.source)
    adapter = read_adapter(arguments.source)
    made = resize_adapter(adapter, options)
    kept = (
        f"keeps at least {made.report.least:.2%} of the energy, {made.report.mean:.2%} on average"
    )
    description = f"Resized from {arguments.source.stem}: {kept}."
    write_adapter(made.adapter, [adapter], arguments, description=description)
    print(f"Wrote {arguments.out}: {ranks(made.report)}, {kept}.")
    return 0
