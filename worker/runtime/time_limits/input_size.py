"""The bytes that a job reads, on which its time limit depends."""

from __future__ import annotations

from collections.abc import Iterable

from sqlmodel import Session, col, select

from app.registry.job_kinds.caption_kinds import CaptionArgs
from app.registry.job_kinds.kinds import (
    EvaluationArgs,
    ExtractAdapterArgs,
    FuseAdapterArgs,
    ImportAdapterArgs,
    MeasureOverlapArgs,
    MergeAdaptersArgs,
)
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.base_models import BaseModel
from app.registry.tables.jobs import IoJob


def input_size(session: Session, store: BlobStore, job: IoJob) -> int:
    """The size of the files that a job reads, in bytes; what is missing counts as empty.

    Raises DamagedJob, BlobNotFound and outages.
    """
    args = job.readable_arguments()
    if isinstance(args, ImportAdapterArgs):
        return store.stat(args.sha256).size
    if isinstance(args, CaptionArgs | EvaluationArgs):
        return 0
    adapters: list[int | None] = []
    bases: list[int | None] = []
    if isinstance(args, (MergeAdaptersArgs, FuseAdapterArgs)):
        adapters = [part.version_id for part in args.parts]
    if isinstance(args, (FuseAdapterArgs, ExtractAdapterArgs)):
        bases = [job.subject_id]
    elif not adapters:
        adapters = [job.subject_id]
    if isinstance(args, MeasureOverlapArgs):
        adapters.append(args.other_id)
    if isinstance(args, ExtractAdapterArgs):
        bases.append(args.tuned_id)
    return _sizes(session, AdapterVersion, adapters) + _sizes(session, BaseModel, bases)


def _sizes(
    session: Session, table: type[AdapterVersion] | type[BaseModel], ids: Iterable[int | None]
) -> int:
    known = [key for key in ids if key is not None]
    sizes = session.exec(select(col(table.size_bytes)).where(col(table.id).in_(known)))
    return sum(size or 0 for size in sizes)
