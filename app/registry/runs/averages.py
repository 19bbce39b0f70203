"""The average of checkpoints of a run, as the next version of the adapter that the run made."""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session

from app.registry.adapters.resolve import resolve
from app.registry.errors import Conflict, invalid_field
from app.registry.job_kinds.kinds import MergeAdaptersArgs
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.jobs.service import enqueue_io
from app.registry.runs import checkpoints, service
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.tables.jobs import IoJob
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS
from worker.core.words import MergeMethod


def order_average(
    session: Session, run_id: int, steps: Collection[int], *, use: bool = False
) -> IoJob:
    """Queue the average of these checkpoints' weight changes, cut to the rank of the run.

    `use`: the result becomes the version in use. Raises NotFound, InvalidInput, and Conflict for a
    checkpoint of which only the training state is stored.
    """
    run = service.get_run(session, run_id)
    wanted = sorted(set(steps))
    if not 2 <= len(wanted) <= MAX_MERGE_ADAPTERS:
        raise invalid_field(
            "steps", f"Choose 2 to {MAX_MERGE_ADAPTERS} checkpoints to average, not {len(wanted)}."
        )
    found = [checkpoints.get_checkpoint(session, run_id, step) for step in wanted]
    args = MergeAdaptersArgs(
        name=run.name,
        parts=tuple(_part(session, row, 1 / len(found)) for row in found),
        method=MergeMethod.SVD,
        rank=max(row.version.rank for row in found if row.version),
        density=1.0,
        seed=0,
        run_id=run.key,
        use=use,
    )
    return enqueue_io(session, args)


def _part(session: Session, row: RunCheckpoint, weight: float) -> ResolvedAdapter:
    if row.version is None or row.address is None:
        raise Conflict(
            f"Of the checkpoint at step {row.step:,} only the training state is stored, not its "
            "adapter. Leave it out."
        )
    named = WeightedAdapter(adapter_id=row.address.key, version=row.step, weight=weight)
    return resolve(session, named)[0]
