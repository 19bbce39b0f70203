"""The tools that read and write LoRA files: `check`, `convert`, `merge`, `resize` and `scale`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.cli.adapter_files.arguments import WeightedFile
from app.cli.progress_line import layer_progress
from worker.core import starter
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.converting import convert as convert_file
from worker.core.lora_files.converting import copy_metadata
from worker.core.lora_files.errors import AdapterError, LossError
from worker.core.lora_files.export import export
from worker.core.lora_files.file_family import family_of
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import BLOCKS
from worker.core.lora_files.proof.foreign import check_file
from worker.core.lora_files.reading import read_adapter
from worker.core.lora_files.tools.combine import MergeOptions, check_merge_options, merge_adapters
from worker.core.lora_files.tools.lowrank import FidelityReport
from worker.core.lora_files.tools.resize import ResizeOptions, check_resize_options, resize_adapter
from worker.core.lora_files.tools.scale import check_factors, scale_blocks
from worker.core.lora_files.tools.stack import ToolError
from worker.core.lora_files.weights import weight_problem
from worker.core.words import FileFormat, MergeMethod, WeightDtype


def check(arguments: Namespace) -> int:
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


def convert(arguments: Namespace) -> None:
    """Write the file and print a summary, with notes on inexact conversions."""
    require_target(arguments.target, arguments.source)
    with layer_progress() as progress:
        try:
            notes = convert_file(
                arguments.source,
                arguments.target,
                format=FileFormat(arguments.format),
                dtype=WeightDtype(arguments.dtype),
                weights=weights_of(arguments.base),
                on_module=progress,
                allow_loss=arguments.allow_loss,
            )
        except LossError as error:
            raise AdapterError(
                f"{error} Nothing was written; add --allow-loss to write it with this loss."
            ) from error
    print(f"Wrote {arguments.target} ({arguments.format}, {arguments.dtype}).")
    for note in notes:
        print(f"Note: {note}")


def merge(arguments: Namespace) -> None:
    """Write the merged file and print its approximation error."""
    method = MergeMethod(arguments.method)
    options = MergeOptions(method, arguments.rank, arguments.density, arguments.seed)
    check_merge_options(options)
    require_target(arguments.out, *(one.path for one in arguments.adapters))
    stack = read_stack(arguments.adapters)
    made = merge_adapters(stack, options)
    description = f"Merged ({method}) from {listed(stack)}."
    sources = [one.adapter for one in stack]
    write_adapter(made.adapter, sources, arguments, description=description)
    error = made.report.relative_error
    exact = "exact" if method is MergeMethod.LINEAR else f"relative error {error:.2%}"
    print(
        f"Wrote {arguments.out}: {listed(stack)}; {len(made.adapter.modules)} modules, "
        f"{ranks(made.report)}, {exact}."
    )


def resize(arguments: Namespace) -> None:
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


def scale(arguments: Namespace) -> None:
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


def base_path(word: str) -> Path:
    """The path of a base model given as a path or `starter`."""
    return starter.PATH if word == "starter" else Path(word)


def weights_of(base: str | None) -> Any:
    """A reader for the weights of the given base model; None without one."""
    if base is None:
        return None
    # here, because it loads diffusers, which a tool without a base model does not need
    from worker.core.lora_files.base_layers import open_base_weights

    return open_base_weights(base_path(base))


def require_target(target: Path, *sources: Path) -> None:
    """Raise AdapterError if the target is a source file or not named `.safetensors`."""
    if target.suffix.lower() != ".safetensors":
        raise AdapterError(
            f"{target} was not written: choose a file name that ends in .safetensors."
        )
    if target.resolve() in {source.resolve() for source in sources}:
        raise AdapterError(
            f"{target} was not written, because it would overwrite the source file. Choose another "
            "name."
        )


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
