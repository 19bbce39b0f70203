"""Downloads that failed for a permanent reason, so they are not offered again."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.adapters.downloads.metadata import facts_sha256, version_metadata
from app.registry.code_version import code_version
from app.registry.job_kinds.kinds import ExportAdapterArgs, ExportAdapterResult, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob

FILE_ERRORS = frozenset({"adapter", "proof"})  # other failures are temporary, such as a full disk


def is_refused(session: Session, order: IoJob) -> bool:
    """True if an export failed because of its file and would fail again with the same code.

    An export without a recorded reason is tried again.
    """
    if order.state is not JobStatus.FAILED or order.error_code not in FILE_ERRORS:
        return False
    version = session.get(AdapterVersion, order.subject_id)
    failure = order.outcome(ExportAdapterResult)
    if version is None or failure.code_version != code_version():
        return False
    with_tags = order.arguments(ExportAdapterArgs).with_tags
    metadata = version_metadata(session, version, with_tags=with_tags)
    return failure.facts_sha256 == facts_sha256(metadata)


def refusals(session: Session, version_id: int) -> dict[tuple[str, str], str]:
    """Reasons why downloads of a version are not offered, by format and dtype, without tags.

    Only the newest export of each counts.
    """
    orders = select(IoJob).where(
        IoJob.kind == JobKind.EXPORT_ADAPTER, IoJob.subject_id == version_id
    )
    newest: dict[tuple[str, str], IoJob] = {}
    for job in session.exec(orders.order_by(col(IoJob.id))):
        args = job.readable_arguments()
        if isinstance(args, ExportAdapterArgs) and not args.with_tags:
            newest[args.format, args.dtype] = job
    return {kind: job.error or "" for kind, job in newest.items() if is_refused(session, job)}
