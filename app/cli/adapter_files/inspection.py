"""The tool `inspect`: shows the properties of a LoRA file, as text or JSON."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from app.cli.adapter_files.files import weights_of
from app.cli.progress_line import layer_progress
from worker.core.lora_files.inspecting import inspect_file
from worker.core.wording import size_text

if TYPE_CHECKING:
    from worker.core.lora_files.inspecting import Inspection

SHOWN = 12  # number of dead layers to list
VALUE = 100  # characters of a metadata value to show
BAR = 24
UNKNOWN_BASE = "unknown (its shapes fit none of SD 1.x, SD 2.x, SDXL)"


def inspect(arguments: Namespace) -> None:
    """Print the properties of the file."""
    weights = weights_of(arguments.base)
    with layer_progress() as progress:
        found = inspect_file(arguments.file, weights, on_module=progress)
    if arguments.json:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        for line in lines(found, arguments.file.name):
            print(line)


def as_json(found: Inspection) -> dict[str, Any]:
    """All properties, without the image's bytes."""
    content = asdict(found)
    told = content.pop("about")
    told["picture"] = told.pop("image") is not None
    return content | {"told": told}


def lines(found: Inspection, name: str) -> Iterator[str]:
    """The properties as lines of text."""
    yield f"{name}: {size_text(found.size_bytes)}, {found.parameters:,} parameters"
    yield f"base        {' or '.join(found.bases) or UNKNOWN_BASE}"
    yield f"kind        {_counts_text(found.kinds)}, named as {' and '.join(found.namings)}"
    yield f"changes     {_counts_text(found.components)}"
    yield f"targets     {_counts_text(found.targets)}"
    yield f"rank        {_counts_text(found.ranks)}"
    yield f"alpha       {_counts_text(found.alphas) or 'not known'}"
    yield f"strength    {_counts_text(found.strengths) or 'not known'}"
    told = found.about
    yield f"name        {told.name}"
    yield f"trigger     {', '.join(told.trigger_words) or '-'}"
    yield f"sha256      {found.hashes.sha256}  (AutoV2 {found.hashes.autov2})"
    yield f"tensors     {found.hashes.tensors}  (AutoV3 {found.hashes.autov3})"
    yield from _blocks(found)
    if found.dead:
        more = f" and {len(found.dead) - SHOWN} more" if len(found.dead) > SHOWN else ""
        yield f"dead layers (without effect): {', '.join(found.dead[:SHOWN])}{more}"
    elif found.blocks:
        yield "dead layers: none"
    yield "metadata" if found.metadata else "metadata: none"
    for key, value in sorted(found.metadata.items()):
        yield f"  {_printable(key)}: {_printable(value)}{' …' if len(value) > VALUE else ''}"
    for note in (*found.notes, *([found.unreadable] if found.unreadable else [])):
        yield f"Note: {note}"


def _blocks(found: Inspection) -> Iterator[str]:
    if not found.blocks:
        return
    yield "strength of the change by block (Frobenius norm at weight 1)"
    width = max(len(block.name) for block in found.blocks)
    most = max(block.norm for block in found.blocks) or 1.0
    for block in found.blocks:
        bar = "#" * round(BAR * block.norm / most)
        yield f"  {block.name:<{width}} {block.modules:>4} modules {block.norm:>10.4g} {bar}"


def _counts_text(counted: Mapping[Any, int]) -> str:
    """`8 (528), 16 (4)`, or a short form if there is only one value."""
    if len(counted) == 1:
        ((value, count),) = counted.items()
        return f"{_number(value)} in all {count} modules"
    return ", ".join(f"{_number(value)} ({count})" for value, count in counted.items())


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:VALUE])
