"""`brushwork adapters fuse --base X --adapter A:0.8 OUT`: fuse LoRA files into a base model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import base_path
from app.cli.adapter_files.stacks import WEIGHTED, listed, read_stack, weighted_file
from worker.core.wording import size_text
from worker.core.words import FusedDtype, values

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the base model, the adapters and the output."""
    parser.add_argument(
        "--base", required=True, metavar="BASE", help="diffusers folder, .safetensors, or starter"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        required=True,
        type=weighted_file,
        metavar=WEIGHTED,
        help="can be repeated",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="a folder, or a single file if it ends in .safetensors",
    )
    parser.add_argument(
        "--dtype",
        choices=values(FusedDtype),
        default="fp16",
        help="number type of all weights (fp16)",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the fused base model and print a summary."""
    from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters
    from worker.core.words import FusedDtype, FuseLayout

    base = base_path(arguments.base)
    single = arguments.out.suffix == ".safetensors"
    layout = FuseLayout.SINGLE if single else FuseLayout.DIFFUSERS
    stack = read_stack(arguments.adapter)
    options = FuseOptions(layout, FusedDtype(arguments.dtype))
    made = fuse_adapters(base, stack, arguments.out, options, base_name=f"“{arguments.base}”")
    print(
        f"Wrote {arguments.out}: {arguments.base} with {listed(stack)}; {made.layers} layers "
        f"changed, {size_text(made.size_bytes)}."
    )
    return 0
