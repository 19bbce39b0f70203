"""The io jobs that measure how far two adapters overlap. Importing this module loads torch."""

from __future__ import annotations

from app.registry.job_kinds.kinds import MeasureOverlapArgs, MeasureOverlapResult
from app.registry.tables.adapters import Adapter, AdapterVersion
from worker.core.lora_files import canonical
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.overlap import measure_overlap
from worker.runtime.job_progress import IoWork, RefusedError

DIGITS = 4
DELETED = "One of the two adapters was deleted. Restore it, then compare them again."


def run(work: IoWork) -> None:
    """Measure the overlap of the versions of a job. Raises RefusedError."""
    other = work.job.arguments(MeasureOverlapArgs).other_id
    with work.cancelable(result={}) as progress:
        try:
            pair = [_load(work, key) for key in (work.subject_id, other)]
            found = measure_overlap(pair[0], pair[1], on_layer=progress)
        except AdapterError as error:
            raise RefusedError("adapter", str(error)) from error
        work.succeed(
            MeasureOverlapResult(
                cosine=round(found.cosine, DIGITS),
                changed=found.changed,
                layers=tuple(
                    (one.key, *(round(x, DIGITS) for x in (one.cosine, one.inputs, one.outputs)))
                    for one in found.layers
                ),
            )
        )


def _load(work: IoWork, version_id: int) -> LoadedAdapter:
    with work.database.read() as session:
        version = session.get(AdapterVersion, version_id)
        adapter = session.get(Adapter, version.adapter_id) if version else None
    if version is None or adapter is None or adapter.deleted_at is not None:
        raise RefusedError("gone", DELETED)
    path = work.store.local_path(version.sha256, work.scratch)
    return LoadedAdapter(adapter.name, canonical.load_adapter(path))
