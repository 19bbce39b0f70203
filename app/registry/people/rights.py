"""Rights to what an address names, before its route is called."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from app.registry.actor import Principal
from app.registry.slugs import id_of
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
    row, thing = _find(session, table, reference)
    if thing is not None:
        require_right(session, principal, thing, own=own and (thing is row or for_good))


def owner_of(session: Session, table: str, reference: str) -> int | None:
    """The owner of the thing of this row; None for a row that is absent or hidden."""
    _, thing = _find(session, table, reference)
    return None if thing is None else int(thing.owner_id)


def owns_job(session: Session, principal: Principal, reference: str) -> bool:
    """True if the person ordered this job."""
    return owner_of(session, "io_job", reference) == principal.user_id


def _find(session: Session, table: str, reference: str) -> tuple[Any, Any]:
    """(the row, its thing); None for what is absent or hidden."""
    mapped = class_of(table)
    if not hasattr(mapped, "slug") and not (reference.isascii() and reference.isdigit()):
        return None, None
    with deleted_too(session):
        row = session.get(mapped, id_of(session, mapped, reference))
    return row, None if row is None else thing_of(session, row)
