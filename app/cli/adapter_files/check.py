"""`brushwork adapters check FILE`: what seven programs make of a LoRA file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from worker.core.bases.family import BaseFamily

if TYPE_CHECKING:
    from app.registry.config import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """The file, and the family of its base when that shall not be told from it."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a LoRA .safetensors file")
    parser.add_argument(
        "--base", choices=tuple(BaseFamily), help="family of the base (told from the file)"
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Print a line for each program; 1 when one that the naming is meant for gets it wrong."""
    from worker.core.lora_files.proof.foreign import check_file

    family = BaseFamily(arguments.base) if arguments.base else None
    proof = check_file(arguments.file, family)
    back = proof.read_back
    print(f"{back.tensors} tensors of {back.modules} layers, for {proof.family}")
    for result in proof.loaders:
        mark = "right" if result.verdict.is_good else str(result.verdict)
        if mark == "right" and not result.right:
            mark = "-"  # it opens no such base, so there is nothing to get right
        print(f"{result.title:<21}{mark:<9}{result.sentence}")
    return 0 if proof.passed else 1
