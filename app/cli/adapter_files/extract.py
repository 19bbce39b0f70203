"""`brushwork adapters extract --base A --tuned B --rank N OUT`: the difference as a LoRA file."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import base_path, require_target
from app.cli.adapter_files.stacks import write_adapter
from worker.core.lora_files.tools.extract import extract_adapter

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the adapter and print its approximation error."""
    require_target(arguments.out)
    base, tuned = base_path(arguments.base), base_path(arguments.tuned)
    found = extract_adapter(base, tuned, arguments.rank)
    error = f"relative error {found.report.relative_error:.2%}"
    description = (
        f"The difference of {tuned.stem} and {base.stem} at rank {arguments.rank}: {error}."
    )
    write_adapter(found.adapter, [], arguments, description=description)
    changed = len(found.adapter.modules)
    print(f"Wrote {arguments.out}: {changed} layers, {found.unchanged} unchanged, {error}.")
    if found.beyond:
        print(
            f"Note: {found.beyond} norms, biases or embeddings also differ, which a LoRA cannot "
            "contain."
        )
    return 0
