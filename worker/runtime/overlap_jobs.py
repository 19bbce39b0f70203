"""The io jobs that measure how far two adapters overlap. Importing this module loads torch."""

from __future__ import annotations

import threading
from pathlib import Path

from app.registry.db import Database
from app.registry.job_kinds.kinds import MeasureOverlapArgs, MeasureOverlapResult
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from worker.core.lora_files import canonical
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.overlap import measure_overlap
from worker.runtime.job_progress import RefusedError, cancelable, succeed
from worker.runtime.lease import Lease

DIGITS = 4
DELETED = "One of the two adapters was deleted. Restore it, then compare them again."


class OverlapJobs:
    """Measures the overlap of two versions."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Measure the overlap of the versions of a job. Raises RefusedError."""
        assert job.subject_id is not None
        other = job.arguments(MeasureOverlapArgs).other_id
        with cancelable(self._database, lease, stopping, result={}) as progress:
            try:
                pair = [self._load(key, scratch) for key in (job.subject_id, other)]
                found = measure_overlap(pair[0], pair[1], on_layer=progress)
            except AdapterError as error:
                raise RefusedError("adapter", str(error)) from error
            result = MeasureOverlapResult(
                cosine=round(found.cosine, DIGITS),
                changed=found.changed,
                layers=tuple(
                    (one.key, *(round(x, DIGITS) for x in (one.cosine, one.inputs, one.outputs)))
                    for one in found.layers
                ),
            )
            with self._database.write() as session:
                succeed(session, lease, result)

    def _load(self, version_id: int, scratch: Path) -> LoadedAdapter:
        with self._database.read() as session:
            version = session.get(AdapterVersion, version_id)
            adapter = session.get(Adapter, version.adapter_id) if version else None
        if version is None or adapter is None or adapter.deleted_at is not None:
            raise RefusedError("gone", DELETED)
        path = self._store.local_path(version.sha256, scratch)
        return LoadedAdapter(adapter.name, canonical.load_adapter(path))
