"""`brushwork adapters resize IN OUT --rank 8`: reduce the rank of a LoRA file."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import require_target
from app.cli.adapter_files.stacks import ranks, write_adapter
from worker.core.lora_files.reading import read_adapter
from worker.core.lora_files.tools.resize import ResizeOptions, check_resize_options, resize_adapter

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the smaller file and print how much it keeps."""
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
