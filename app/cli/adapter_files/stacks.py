"""Reads the adapters that a tool combines, and writes the resulting one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.cli.adapter_files.arguments import WeightedFile
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.converting import copy_metadata
from worker.core.lora_files.export import export
from worker.core.lora_files.file_family import family_of
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.reading import read_adapter
from worker.core.lora_files.tools.lowrank import FidelityReport
from worker.core.lora_files.tools.stack import ToolError
from worker.core.lora_files.weights import weight_problem
from worker.core.words import FileFormat, WeightDtype


def read_stack(files: Sequence[WeightedFile]) -> list[LoadedAdapter]:
    """Read the adapters of these files. Raises AdapterError if a file is given twice."""
    seen: set[Path] = set()
    for one in files:
        for weight in (one.weight, one.text_encoder_weight or 0.0):
            if problem := weight_problem(weight, one.path.name):
                raise ToolError(problem)
        if (place := one.path.resolve()) in seen:
            raise ToolError(
                f"{one.path.name} is given twice. Give it once, with the sum of both weights."
            )
        seen.add(place)
    return [
        LoadedAdapter(one.path.stem, read_adapter(one.path), one.weight, one.text_encoder_weight)
        for one in files
    ]


def write_adapter(
    adapter: LoraAdapter, sources: Sequence[LoraAdapter], arguments: Namespace, *, description: str
) -> None:
    """Write the output file, with the trigger words of all sources."""
    out: Path = arguments.out
    family = family_of(sources[0] if sources else adapter)
    told = [copy_metadata(source, out.stem, family) for source in sources or [adapter]]
    words = dict.fromkeys(word for one in told for word in one.trigger_words)
    metadata = replace(told[0], title=out.stem, trigger_words=tuple(words), description=description)
    export(
        adapter,
        out,
        format=FileFormat(arguments.format),
        dtype=WeightDtype(arguments.dtype),
        metadata=metadata,
    )


def ranks(report: FidelityReport) -> str:
    """`rank 8`, or `ranks 2 to 8`."""
    found = report.summary()
    low, high = found["rank_min"], found["rank_max"]
    return f"rank {low}" if low == high else f"ranks {low} to {high}"


def listed(stack: Sequence[LoadedAdapter]) -> str:
    """`ink × 0.8, chalk × -0.5`."""
    return ", ".join(
        f"{one.name} × {one.weight:g}"
        + (f" (text {one.text_encoder_weight:g})" if one.text_encoder_weight is not None else "")
        for one in stack
    )
