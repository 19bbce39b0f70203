"""Jobs of the tools: merge, resize, scale, fuse, extract. An io worker processes them.

Requests are checked against the registry here, at once; problems that need the weights are reported
by the job.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from app.registry.adapters import fitting, service
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.base_models import service as base_models
from app.registry.errors import AppError, InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.kinds import (
    ExtractAdapterArgs,
    FuseAdapterArgs,
    FuseAdapterResult,
    FuseOutput,
    ImportAdapterArgs,
    JobKind,
    JobResult,
    MergeAdaptersArgs,
    ResizeAdapterArgs,
    ScaleAdapterArgs,
)
from app.registry.job_kinds.states import ACTIVE
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.jobs import service as jobs
from app.registry.jobs.rights import require_edit
from app.registry.jobs.service import enqueue_io
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import JOB_FILES_KEPT, IoJob
from app.registry.validation import checked_name
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS
from worker.core.words import FusedDtype, FuseLayout, MergeMethod

KINDS = (
    JobKind.MERGE_ADAPTERS,
    JobKind.RESIZE_ADAPTER,
    JobKind.SCALE_ADAPTER,
    JobKind.FUSE_ADAPTER,
    JobKind.EXTRACT_ADAPTER,
)
VERSION_KINDS = (JobKind.RESIZE_ADAPTER, JobKind.SCALE_ADAPTER)
MAX_RANK = 1_024
MAX_TRIGGERS = 20
MAX_LICENSE = 80


def order_merge(
    session: Session,
    name: str,
    parts: Sequence[WeightedAdapter],
    *,
    method: MergeMethod = MergeMethod.LINEAR,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> IoJob:
    """Queue a merge of adapters into a new one. Raises InvalidInput with the reason."""
    found = _resolve_parts(session, parts)
    if len(found) < 2:
        raise invalid_field("adapters", "Choose at least two adapters to merge.")
    made = [pair for _, pair in found]
    if sentence := fitting.stranger(made, fitting.kinds(session, made)):
        raise invalid_field("adapters", sentence)
    if method is MergeMethod.LINEAR:
        rank = None
    else:
        _check_rank(rank)
    _check_share("density", "The density", density)
    args = MergeAdaptersArgs(
        name=checked_name(name),
        parts=tuple(part for part, _ in found),
        method=method,
        rank=rank,
        density=density,
        seed=seed,
    )
    return enqueue_io(session, args)


def order_resize(
    session: Session, adapter_id: int, order: ResizeAdapterArgs, version: int | str | None = None
) -> IoJob:
    """Queue a smaller version of an adapter. Raises InvalidInput with the reason."""
    row = service.get_version(session, _extended(session, adapter_id), version)
    if (order.rank is None) == (order.energy is None):
        raise invalid_field("rank", "Choose either a rank or a share of energy to keep.")
    if order.rank is not None:
        _check_rank(order.rank)
        if order.dynamic:
            raise invalid_field(
                "dynamic", "Individual ranks need a share of energy instead of a rank."
            )
    if order.energy is not None:
        _check_share("energy", "The energy to keep", order.energy)
    return enqueue_io(session, order, subject_id=row.key)


def order_scale(
    session: Session, adapter_id: int, order: ScaleAdapterArgs, version: int | str | None = None
) -> IoJob:
    """Queue a version of an adapter with its block weights. Raises InvalidInput with the reason."""
    row = service.get_version(session, _extended(session, adapter_id), version)
    if all(factor == 1 for factor in order.blocks.factors):
        raise invalid_field(
            "block_weights",
            "All factors are 1, which changes nothing. Give a block another factor.",
        )
    return enqueue_io(session, order, subject_id=row.key)


def _extended(session: Session, adapter_id: int) -> Adapter:
    """An adapter that gets a version. Raises NotFound, or Forbidden if that is not permitted."""
    adapter = service.get_adapter(session, adapter_id)
    require_edit(session, adapter)
    return adapter


def order_fuse(
    session: Session,
    name: str,
    parts: Sequence[WeightedAdapter],
    *,
    base: str | int | None = None,
    layout: FuseLayout = FuseLayout.DIFFUSERS,
    dtype: FusedDtype | None = None,
    keep: FuseOutput = FuseOutput.BASE_MODEL,
) -> IoJob:
    """Queue a fusion of adapters into a base model. Raises InvalidInput with the reason.

    `dtype`: None for what is usual with the base model.
    """
    found = _resolve_parts(session, parts)
    if not found:
        raise invalid_field("adapters", "Choose at least one adapter to fuse.")
    if all(part.is_off for part, _ in found):
        raise invalid_field(
            "weight", "All weights are 0, which changes nothing. Enter another weight."
        )
    reference = base if base is not None else found[0][0].base_model_id
    if reference is None:
        raise invalid_field(
            "base_model", "Choose a base model, because the adapter's own is unknown."
        )
    row = _ready_base(session, reference, "base_model")
    if sentences := fitting.misfits(session, [made for _, made in found], row):
        raise invalid_field("base_model", sentences[0])
    if keep is FuseOutput.DOWNLOAD and layout is not FuseLayout.SINGLE:
        raise invalid_field(
            "keep",
            "A folder cannot be downloaded. Choose a single file, or keep it as a base model.",
        )
    options = row.options
    usual = FusedDtype(options.gpu_precision)
    dtype = dtype or usual
    if dtype is FusedDtype.FP16 and dtype is not usual:
        raise invalid_field("dtype", options.training["precision"].reason)
    if layout is FuseLayout.SINGLE and not options.has_single_file:
        raise invalid_field("layout", f"{row.family_label} is always a folder: choose diffusers.")
    args = FuseAdapterArgs(
        name=checked_name(name),
        parts=tuple(part for part, _ in found),
        layout=layout,
        dtype=dtype,
        keep=keep,
    )
    return enqueue_io(session, args, subject_id=row.key)


def order_extract(
    session: Session, *, name: str, base: str | int, tuned: str | int, rank: int
) -> IoJob:
    """Queue the extraction of an adapter from two base models. Raises InvalidInput."""
    first, second = _ready_base(session, base, "base"), _ready_base(session, tuned, "tuned")
    if first.key == second.key:
        raise invalid_field("tuned", "Both are the same base model. Choose two different ones.")
    if first.family != second.family:
        raise invalid_field(
            "tuned",
            f"“{first.name}” is {first.family_label} and “{second.name}” is "
            f"{second.family_label}; choose two base models of the same family.",
        )
    _check_rank(rank)
    args = ExtractAdapterArgs(tuned_id=second.key, rank=rank, name=checked_name(name))
    return enqueue_io(session, args, subject_id=first.key)


def active_jobs(session: Session, adapter: Adapter) -> list[IoJob]:
    """Queued and running tool jobs of this adapter, oldest first."""
    waiting = select(IoJob).where(
        col(IoJob.status).in_(ACTIVE),
        col(IoJob.kind).in_(KINDS),
    )
    versions = set(
        session.exec(select(AdapterVersion.id).where(AdapterVersion.adapter_id == adapter.key))
    )
    return [
        job
        for job in session.exec(waiting.order_by(col(IoJob.id)))
        if (job.kind in VERSION_KINDS and job.subject_id in versions)
        or adapter.key in needed_adapters(job)
    ]


def needed_adapters(job: IoJob) -> set[int]:
    """The adapters that the arguments of a job name; its subject is not among them."""
    args = job.readable_arguments()
    if isinstance(args, MergeAdaptersArgs | FuseAdapterArgs):
        return {part.adapter_id for part in args.parts}
    if isinstance(args, ImportAdapterArgs) and args.adapter_id is not None:
        return {args.adapter_id}
    return set()


def get_job(session: Session, job_id: int) -> IoJob:
    """Look up a tool job. Raises NotFound."""
    return jobs.get_io(session, job_id, "tool job", *KINDS)


def cancel(session: Session, job_id: int) -> IoJob:
    """Cancel a tool job. Raises Conflict if it has ended."""
    job = get_job(session, job_id)
    jobs.request_cancel(session, IoJob, job)
    return job


class FileGone(AppError, status=410, title="No longer kept", code="file_swept"):
    """A file for download has expired."""


def fused_file(session: Session, store: BlobStore, job_id: int) -> tuple[str, str]:
    """(hash, file name) of a fused base model for download. Raises FileGone if it has expired."""
    job = get_job(session, job_id)
    fused = job.outcome(JobResult)
    if not isinstance(fused, FuseAdapterResult) or fused.sha256 is None:
        raise NotFound("This tool job has no file to download.")
    sha256, name = fused.sha256, fused.filename or fused.sha256
    if not store.exists(sha256):
        kept = f"was deleted after {JOB_FILES_KEPT.days} days"
        raise FileGone(f"The file {name} {kept}. Fuse it again to download it.")
    return sha256, name


def _resolve_parts(
    session: Session, parts: Sequence[WeightedAdapter]
) -> list[tuple[ResolvedAdapter, AdapterAndVersion]]:
    if len(parts) > MAX_MERGE_ADAPTERS:
        raise invalid_field(
            "adapters", f"At most {MAX_MERGE_ADAPTERS} adapters; this is {len(parts)}."
        )
    found: dict[int, tuple[ResolvedAdapter, AdapterAndVersion]] = {}
    for part in parts:
        resolved, made = resolve(session, part)
        if resolved.version_id in found:
            raise invalid_field(
                "adapters",
                f"“{resolved.name}” is named twice. Name it once, with the sum of both weights.",
            )
        found[resolved.version_id] = resolved, made
    return list(found.values())


def _ready_base(session: Session, reference: str | int | None, field: str) -> BaseModel:
    try:
        base = base_models.find_base_model(session, reference)
        base_models.require_ready(base)
    except InvalidInput as error:
        raise invalid_field(field, error.detail) from error
    return base


def _check_rank(rank: int | None) -> None:
    if rank is None:
        raise invalid_field("rank", "Choose the rank of the result.")
    if not 1 <= rank <= MAX_RANK:
        raise invalid_field("rank", f"The rank is {rank}. Enter a rank from 1 to {MAX_RANK:,}.")


def _check_share(field: str, what: str, value: float) -> None:
    if not 0 < value <= 1:
        raise invalid_field(field, f"{what} is {value:g}. Enter a share above 0 and up to 1.")
