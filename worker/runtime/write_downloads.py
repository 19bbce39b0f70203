"""Writes and verifies downloads with torch, in the trainer process or the io worker."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from worker.core.bases.family import BaseFamily
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import AdapterError, LoraAdapter
from worker.core.lora_files.export import AdapterDtype, AdapterFormat, ExportFacts, export
from worker.runtime.messages import Export, ExportFile, Facts
from worker.runtime.prove_downloads import Prover


def write_downloads(path: Path, order: Export) -> list[ExportFile]:
    """Write and verify every file of the order from the canonical adapter at `path`.

    A file that fails verification is deleted; its `problem` gives the reason. Raises AdapterError
    if the canonical file is damaged.
    """
    adapter = canonical.load_adapter(path)
    family = BaseFamily(order.facts.family)
    prover = Prover(order.base, family, tuple(order.facts.trigger_words))
    written = []
    for file in order.files:
        try:
            proof = _write_file(adapter, file, order.facts, prover)
            written.append(replace(file, proof=proof))
        except AdapterError as error:
            file.path.unlink(missing_ok=True)
            written.append(replace(file, problem=str(error)))
    return written


def _write_file(
    adapter: LoraAdapter, file: ExportFile, facts: Facts, prover: Prover
) -> dict[str, object]:
    proof = export(
        adapter,
        file.path,
        format=AdapterFormat(file.format),
        dtype=AdapterDtype(file.dtype),
        family=BaseFamily(facts.family),
        facts=_export_facts(facts),
        shapes=prover.shapes_for(adapter),
    )
    with _weights_file(file) as weights:
        proof = prover.prove(weights, adapter, proof)
    if not proof.passed:
        raise AdapterError(proof.failures[0])
    return proof.as_json()


@contextmanager
def _weights_file(file: ExportFile) -> Iterator[Path]:
    """The safetensors file of a download: itself, or the one in a bundle."""
    if file.format != AdapterFormat.BUNDLE:
        yield file.path
        return
    folder = tempfile.TemporaryDirectory(dir=file.path.parent)
    with folder as place, zipfile.ZipFile(file.path) as bundle:
        name = next(n for n in bundle.namelist() if n.endswith(".safetensors"))
        yield Path(bundle.extract(name, place))


def _export_facts(facts: Facts) -> ExportFacts:
    return ExportFacts(
        title=facts.title,
        slug=facts.slug,
        base_name=facts.base_name,
        resolution=facts.resolution,
        created=datetime.fromisoformat(facts.created),
        training_seconds=facts.training_seconds,
        trigger_words=tuple(facts.trigger_words),
        description=facts.description,
        author=facts.author,
        license=facts.licence,
        tags=tuple(facts.tags),
        prediction_type=facts.prediction_type,
        images=facts.images,
        cover=facts.cover,
        train_config=json.dumps(facts.config) if facts.config else None,
        tag_counts=facts.tag_counts,
    )
