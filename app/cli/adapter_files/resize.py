"""`brushwork adapters resize IN OUT --rank 8`: a LoRA file at a lower rank."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import require_target
from app.cli.adapter_files.stacks import add_output, ranks, write_adapter

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """The files, and the rank or the share of the energy."""
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--rank", type=int, help="the new rank of all modules")
    wanted.add_argument(
        "--energy", type=float, metavar="SHARE", help="what every module keeps at least: 0.95"
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="with --energy: a rank of its own for each module"
    )
    add_output(parser)


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the smaller file and say what it kept."""
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
    kept = f"energy kept {made.report.least:.2%} at least, {made.report.mean:.2%} in the mean"
    description = f"Resized from {arguments.source.stem}: {kept}."
    write_adapter(made.adapter, [adapter], arguments, description=description)
    print(f"Wrote {arguments.out}: {ranks(made.report)}, {kept}.")
    return 0
