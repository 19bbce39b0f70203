"""`brushwork adapters scale IN OUT --output 0.5`: apply block weights to a LoRA file."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import require_target
from app.cli.adapter_files.stacks import ranks, write_adapter
from worker.core.lora_files.parts import BLOCKS
from worker.core.lora_files.reading import read_adapter
from worker.core.lora_files.tools.scale import check_factors, scale_blocks

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the file with its changes multiplied."""
    factors = {part: getattr(arguments, part.value) for part in BLOCKS.values()}
    check_factors(factors)
    require_target(arguments.out, arguments.source)
    adapter = read_adapter(arguments.source)
    made = scale_blocks(adapter, factors)
    told = ", ".join(f"{part.value} × {factor:g}" for part, factor in factors.items())
    description = f"Scaled from {arguments.source.stem}: {told}."
    write_adapter(made.adapter, [adapter], arguments, description=description)
    print(f"Wrote {arguments.out}: {told}, {ranks(made.report)}.")
    return 0
