"""Rights to what an address names, before its route is called."""

from __future__ import annotations

from sqlmodel import Session, SQLModel

from app.registry.actor import Principal
from app.registry.slugs import id_of
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import class_of, require_right, thing_of
from app.registry.tables.rows import deleted_too


def require_named(
    session: Session,
    principal: Principal,
    table: str,
    reference: str,
    *,
    own: bool,
    for_good: bool = False,
) -> None:
    """Raise Forbidden if the person may not change the thing of this row.

    `own`: not delete or share it, which of a part, such as an image, is meant only `for_good`.
    Nothing is raised for a row that is absent or hidden.
    """
    row = _find(session, class_of(table), reference)
    thing = None if row is None else thing_of(session, row)
    if thing is not None:
        require_right(session, principal, thing, own=own and (thing is row or for_good))


def owns_job(session: Session, principal: Principal, reference: str) -> bool:
    """True if the person ordered this job."""
    job = _find(session, IoJob, reference)
    return isinstance(job, IoJob) and job.owner_id == principal.user_id


def _find(session: Session, table: type[SQLModel], reference: str) -> SQLModel | None:
    has_slug = hasattr(table, "slug")
    if not has_slug and not (reference.isascii() and reference.isdigit()):
        return None
    with deleted_too(session):
        return session.get(table, id_of(session, table, reference))
