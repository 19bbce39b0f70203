"""Which downloads cannot be right, so that nobody is offered them or waits for them again."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.adapters.downloads.file_facts import file_facts
from app.registry.adapters.models import AdapterVersion
from app.registry.code_version import code_version
from app.registry.jobs.kinds import ExportAdapterArgs, ExportAdapterResult, JobKind
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus

OF_THE_FILE = frozenset({"adapter", "proof"})  # other failures pass: a full disk, a killed worker


def is_refused(session: Session, order: IoJob) -> bool:
    """True when an order failed for its file, and this very code and these facts would fail again.

    An order whose worker did not say what it was is tried once more.
    """
    if order.state is not JobStatus.FAILED or order.error_code not in OF_THE_FILE:
        return False
    version = session.get(AdapterVersion, order.subject_id)
    failure = order.outcome(ExportAdapterResult)
    if version is None or failure.code_version != code_version():
        return False
    with_tags = order.arguments(ExportAdapterArgs).with_tags
    return failure.facts_sha256 == file_facts(session, version, with_tags=with_tags).sha256


def refusals(session: Session, version_id: int) -> dict[tuple[str, str], str]:
    """Why a download of a version is not offered, by its format and dtype; those with tags apart.

    What counts is the newest order of each.
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
