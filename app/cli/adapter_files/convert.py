"""`brushwork adapters convert IN OUT`: convert a LoRA file to another format or number type."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import require_target, weights_of
from worker.core.words import LORA_FORMATS, FileFormat, WeightDtype, values

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the files, the format and the number type."""
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--format",
        choices=values(LORA_FORMATS),
        default="kohya",
        help="kohya: for all common programs; peft: for diffusers (kohya)",
    )
    parser.add_argument(
        "--dtype", choices=values(WeightDtype), default="fp16", help="number type (fp16)"
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="the base model of a DoRA: diffusers folder, .safetensors, or starter",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the file and print a summary, with notes on inexact conversions."""
    from worker.core.lora_files.converting import convert

    require_target(arguments.target, arguments.source)
    notes = convert(
        arguments.source,
        arguments.target,
        format=FileFormat(arguments.format),
        dtype=WeightDtype(arguments.dtype),
        weights=weights_of(arguments.base),
    )
    print(f"Wrote {arguments.target} ({arguments.format}, {arguments.dtype}).")
    for note in notes:
        print(f"Note: {note}")
    return 0
