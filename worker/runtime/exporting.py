"""Writes downloads with torch: in the trainer process, or in the io worker when asked later."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from worker.adapters import canonical
from worker.adapters.export import AdapterDtype, AdapterFormat, ExportFacts, export
from worker.bases.family import BaseFamily
from worker.runtime.messages import Export, Facts


def write_downloads(path: Path, order: Export) -> None:
    """Write every file of the order from the canonical adapter at `path`; each is read back.

    Raises AdapterError when a file would not be faithful.
    """
    adapter = canonical.load(path)
    facts = _export_facts(order.facts)
    for file in order.files:
        export(
            adapter,
            file.path,
            format=AdapterFormat(file.format),
            dtype=AdapterDtype(file.dtype),
            family=BaseFamily(order.facts.family),
            facts=facts,
        )


def _export_facts(facts: Facts) -> ExportFacts:
    return ExportFacts(
        title=facts.title,
        slug=facts.slug,
        base_name=facts.base_name,
        resolution=facts.resolution,
        created=datetime.fromisoformat(facts.created),
        trigger_words=tuple(facts.trigger_words),
        description=facts.description,
        tags=tuple(facts.tags),
        prediction_type=facts.prediction_type,
        images=facts.images,
        cover=facts.cover,
        train_config=json.dumps(facts.config) if facts.config else None,
    )
