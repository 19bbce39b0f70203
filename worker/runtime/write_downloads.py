"""Writes and verifies downloads with torch, in the trainer process or the io worker."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import export
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.words import FileFormat
from worker.runtime.messages import Export, ExportFile
from worker.runtime.prove_downloads import Prover


def write_downloads(path: Path, order: Export) -> list[ExportFile]:
    """Write and verify every file of the order from the canonical adapter at `path`.

    A file that fails verification is deleted; its `problem` gives the reason. Raises AdapterError
    if the canonical file is damaged.
    """
    adapter = canonical.load_adapter(path)
    metadata = order.metadata
    prover = Prover(order.base, metadata.family, metadata.trigger_words)
    written = []
    for file in order.files:
        try:
            proof = _write_file(adapter, file, metadata, prover)
            written.append(replace(file, proof=proof))
        except AdapterError as error:
            file.path.unlink(missing_ok=True)
            written.append(replace(file, problem=str(error)))
    return written


def _write_file(
    adapter: LoraAdapter, file: ExportFile, metadata: AdapterMetadata, prover: Prover
) -> dict[str, object]:
    proof = export(
        adapter,
        file.path,
        format=file.format,
        dtype=file.dtype,
        metadata=metadata,
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
    if file.format is not FileFormat.BUNDLE:
        yield file.path
        return
    folder = tempfile.TemporaryDirectory(dir=file.path.parent)
    with folder as place, zipfile.ZipFile(file.path) as bundle:
        name = next(n for n in bundle.namelist() if n.endswith(".safetensors"))
        yield Path(bundle.extract(name, place))
