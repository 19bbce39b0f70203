"""`brushwork adapters convert IN OUT`: convert a LoRA file to another format or number type."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import require_target, weights_of
from app.cli.progress_line import layer_progress
from worker.core.lora_files.converting import ConvertOptions, convert
from worker.core.lora_files.errors import AdapterError, LossError
from worker.core.words import FileFormat, WeightDtype

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the file and print a summary, with notes on inexact conversions."""
    require_target(arguments.target, arguments.source)
    with layer_progress() as progress:
        try:
            notes = convert(
                arguments.source,
                arguments.target,
                format=FileFormat(arguments.format),
                dtype=WeightDtype(arguments.dtype),
                weights=weights_of(arguments.base),
                options=ConvertOptions(progress, arguments.allow_loss),
            )
        except LossError as error:
            raise AdapterError(
                f"{error} Nothing was written; add --allow-loss to write it with this loss."
            ) from error
    print(f"Wrote {arguments.target} ({arguments.format}, {arguments.dtype}).")
    for note in notes:
        print(f"Note: {note}")
    return 0
