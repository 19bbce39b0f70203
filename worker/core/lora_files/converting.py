"""Converts a LoRA file to another naming or number type, without a registry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.export import export
from worker.core.lora_files.file_family import find_family
from worker.core.lora_files.file_layout import read_layout
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.read_metadata import MAX_NAME, read_source_metadata
from worker.core.lora_files.reading import BaseWeights, convert_layout
from worker.core.words import FileFormat, WeightDtype


def convert(
    source: Path,
    target: Path,
    *,
    format: FileFormat,
    dtype: WeightDtype,
    weights: BaseWeights | None = None,
    on_module: Callable[[int, int], None] = lambda done, total: None,
    allow_loss: bool = False,
) -> tuple[str, ...]:
    """Convert `source` to this naming and number type; return notes on inexact parts.

    `weights` are those of the base model, needed only for DoRA. `on_module(done, total)` is called
    before each module; with `allow_loss` it loses what is needed. Raises AdapterError if the source
    cannot be read or the result would not be exact, LossError if much would be lost.
    """
    found = read_layout(source)
    family, notes = find_family(found)
    reading = convert_layout(
        found.with_shapes(family_shapes(family)),
        weights,
        on_module=on_module,
        allow_loss=allow_loss,
    )
    metadata = copy_metadata(reading.adapter, target.stem, family)
    export(reading.adapter, target, format=format, dtype=dtype, metadata=metadata)
    return (*notes, *reading.notes)


def copy_metadata(adapter: LoraAdapter, stem: str, family: BaseFamily) -> AdapterMetadata:
    """The metadata of the source file, for the header of the new file."""
    source = read_source_metadata(adapter.metadata, (), f"{stem}.safetensors")
    return AdapterMetadata(
        title=source.name,
        slug=stem,
        family=family,
        base_name=adapter.metadata.get("ss_sd_model_name", "")[:MAX_NAME],
        resolution=family.facts.native_side,
        created=datetime.now(UTC),
        trigger_words=source.trigger_words,
        description=source.description,
        author=source.author,
        license=source.license,
        tags=source.tags,
    )
