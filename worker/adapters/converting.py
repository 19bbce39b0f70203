"""A LoRA file written anew in another naming or number type, without a registry."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from worker.adapters.canonical import Adapter, Component
from worker.adapters.export import AdapterDtype, AdapterFormat, ExportFacts, export
from worker.adapters.reading import read_any
from worker.bases.family import BaseFamily

RESOLUTION = {BaseFamily.SD1: 512, BaseFamily.SD2: 768, BaseFamily.SDXL: 1024}


def convert(
    source: Path, target: Path, *, format: AdapterFormat, dtype: AdapterDtype
) -> tuple[str, ...]:
    """Write `source` to `target` in this naming and number type; notes on what is not exact.

    Raises AdapterError when the source cannot be read or the result would not be faithful.
    """
    adapter = read_any(source)
    family = family_of(adapter)
    facts = facts_of(adapter, target.stem, family)
    export(adapter, target, format=format, dtype=dtype, family=family, facts=facts)
    return ()


def family_of(adapter: Adapter) -> BaseFamily:
    """The family whose names the adapter's modules have in kohya files."""
    if Component.TEXT_ENCODER_2 in adapter.components:
        return BaseFamily.SDXL
    for module in adapter.modules:
        if module.path.endswith(("attn2.to_k", "attn2.to_v")):
            width = module.weight_shape[1]
            if width >= 1024:
                return BaseFamily.SD2 if width == 1024 else BaseFamily.SDXL
    return BaseFamily.SD1


def facts_of(adapter: Adapter, stem: str, family: BaseFamily) -> ExportFacts:
    """What the file's own metadata says, for the new file's header."""
    told = adapter.metadata
    phrase = told.get("modelspec.trigger_phrase", "")
    return ExportFacts(
        title=told.get("modelspec.title") or told.get("ss_output_name") or stem,
        slug=stem,
        base_name=told.get("ss_sd_model_name", ""),
        resolution=RESOLUTION[family],
        created=datetime.now(UTC),
        trigger_words=tuple(word.strip() for word in phrase.split(",") if word.strip()),
        description=told.get("modelspec.description", ""),
        author=told.get("modelspec.author", ""),
        license=told.get("modelspec.license", ""),
    )
