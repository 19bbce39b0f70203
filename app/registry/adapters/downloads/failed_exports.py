"""Which downloads cannot be right, so that nobody is offered them or waits for them again."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.adapters.downloads.file_facts import file_facts
from app.registry.adapters.models import AdapterVersion
from app.registry.code_version import code_version
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
    if version is None or order.result.get("code_version") != code_version():
        return False
    facts = file_facts(session, version, with_tags=bool(order.args.get("with_tags")))
    return bool(order.result.get("facts_sha256") == facts.sha256)


def refusals(session: Session, version_id: int) -> dict[tuple[str, str], str]:
    """Why a download of a version is not offered, by its format and dtype; those with tags apart.

    What counts is the newest order of each.
    """
    orders = select(IoJob).where(IoJob.kind == "export_adapter", IoJob.subject_id == version_id)
    newest = {
        (job.args["format"], job.args["dtype"]): job
        for job in session.exec(orders.order_by(col(IoJob.id)))
        if not job.args.get("with_tags")
    }
    return {kind: job.error or "" for kind, job in newest.items() if is_refused(session, job)}
