"""Checkpoints of a run that no trainer made: adapters with random weights for `starter`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session

from app.registry.adapters.versions.create_version import NewVersion, make_version
from app.registry.tables.adapters import Adapter
from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.runtime.job_loops import Registry
from worker.core import starter
from worker.core.lora_files import canonical
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint


def add_checkpoints(
    registry: Registry, session: Session, run_id: int, folder: Path, *, steps: Sequence[int]
) -> None:
    """Adapters of checkpoints, with random weights."""
    with BaseCheckpoint(starter.PATH) as base:
        shapes = dict(sorted(base.target_shapes.items())[::7])
        family = base.info.family
    address = Adapter(run_id=run_id, slug="chalk-run", name="Chalk", base_family=family)
    session.add(address)
    session.flush()
    for step in steps:
        path = folder / f"{step}.safetensors"
        canonical.save_adapter(random_adapter(shapes, seed=step, rank=2), path)
        blob = registry.store.put_file(path)
        new = NewVersion(
            name="Chalk",
            base_family=family,
            sha256=blob.sha256,
            size_bytes=blob.size,
            rank=2,
            alpha=2.0,
            base_model_id=registry.base_id,
            dataset_version_id=registry.version_id,
            trigger_words=["chalk style"],
            run_id=run_id,
            number=step,
        )
        session.add(make_version(session, new, address))
