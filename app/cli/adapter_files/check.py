"""`brushwork adapters check FILE`: check how seven programs read a LoRA file."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.foreign import check_file

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Print a line per program; return 1 if a program that the format is meant for fails."""
    family = BaseFamily(arguments.base) if arguments.base else None
    proof = check_file(arguments.file, family)
    back = proof.read_back
    print(f"{back.tensors} tensors of {back.modules} layers, for {proof.family}")
    for result in proof.loaders:
        mark = "right" if result.verdict.is_good else str(result.verdict)
        if mark == "right" and not result.right:
            mark = "-"  # it does not support this base model
        print(f"{result.title:<21}{mark:<9}{result.sentence}")
    return 0 if proof.passed else 1
