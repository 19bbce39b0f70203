"""Converts a LoRA file to another naming or number type, without a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import Component, LoraAdapter
from worker.core.lora_files.compatible import AdapterLike, cross_attention_width, mismatched_modules
from worker.core.lora_files.export import export
from worker.core.lora_files.families import family_shapes
from worker.core.lora_files.file_layout import FileLayout, read_layout
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.read_metadata import MAX_NAME, read_source_metadata
from worker.core.lora_files.reading import (
    BaseWeights,
    convert_layout,
    family_from_metadata,
    matching_families,
)
from worker.core.words import FileFormat, WeightDtype

SD2_WIDTH = BaseFamily.SD2.facts.text_width


@dataclass(frozen=True)
class ConvertOptions:
    """`on_module(done, total)` is called before each module; `allow_loss`: lose what is needed."""

    on_module: Callable[[int, int], None] = lambda done, total: None
    allow_loss: bool = False


def convert(
    source: Path,
    target: Path,
    *,
    format: FileFormat,
    dtype: WeightDtype,
    weights: BaseWeights | None = None,
    options: ConvertOptions | None = None,
) -> tuple[str, ...]:
    """Convert `source` to this naming and number type; return notes on inexact parts.

    `weights` are those of the base model, needed only for DoRA. Raises AdapterError if the source
    cannot be read or the result would not be exact, LossError if much would be lost.
    """
    options = options or ConvertOptions()
    found = read_layout(source)
    family, notes = find_family(found)
    reading = convert_layout(
        found.with_shapes(family_shapes(family)),
        weights,
        on_module=options.on_module,
        allow_loss=options.allow_loss,
    )
    metadata = copy_metadata(reading.adapter, target.stem, family)
    export(reading.adapter, target, format=format, dtype=dtype, metadata=metadata)
    return (*notes, *reading.notes)


def family_of(adapter: AdapterLike) -> BaseFamily:
    """The family whose kohya names the modules get, by their shapes."""
    for family in BaseFamily:
        if not mismatched_modules(adapter, family_shapes(family)):
            return family
    keys = {module.key: module.weight_shape for module in adapter.modules}
    width = cross_attention_width(keys) or 0
    if width > SD2_WIDTH or any(key.startswith(Component.TEXT_ENCODER_2) for key in keys):
        return BaseFamily.SDXL
    return BaseFamily.SD2 if width == SD2_WIDTH else BaseFamily.SD1


def find_family(found: FileLayout) -> tuple[BaseFamily, list[str]]:
    """(family, notes on doubts); the header decides if the shapes fit several families."""
    families, named = matching_families(found), family_from_metadata(found.metadata)
    if named in families or (named and not families):
        family = named
    else:
        family = families[0] if families else family_of(found)
    if len(families) > 1 and named not in families:
        fitting = " and ".join(other.label for other in families)
        return family, [f"The file fits {fitting}; it was written for {family.label}."]
    if not families:
        return family, [
            "The file's shapes match no known base model; its modules were named as in "
            f"{family.label}."
        ]
    return family, []


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
