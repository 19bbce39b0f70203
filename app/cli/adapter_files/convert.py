"""`brushwork adapters convert IN OUT`: a LoRA file in another naming or number type."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.adapter_files import require_target, weights_of

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """The files, and what is written."""
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--format",
        choices=("kohya", "peft"),
        default="kohya",
        help="kohya: every common program reads it; peft: diffusers (kohya)",
    )
    parser.add_argument(
        "--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="number type (fp16)"
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="the base model of a DoRA: diffusers folder, .safetensors, or starter",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the file and print what was written, with every note on what is not exact."""
    from worker.core.lora_files.converting import convert
    from worker.core.lora_files.export import AdapterDtype, AdapterFormat

    require_target(arguments.target, arguments.source)
    notes = convert(
        arguments.source,
        arguments.target,
        format=AdapterFormat(arguments.format),
        dtype=AdapterDtype(arguments.dtype),
        weights=weights_of(arguments.base),
    )
    print(f"Wrote {arguments.target} ({arguments.format}, {arguments.dtype}).")
    for note in notes:
        print(f"Note: {note}")
    return 0
