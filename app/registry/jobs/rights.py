"""A job acts as its owner: what it may use, what it finds, and whose is what it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlmodel import Session

from app.registry.actor import FIRST_USER, Principal, Role, Visibility, making_for
from app.registry.errors import invalid_field
from app.registry.job_kinds.kinds import JobKind
from app.registry.tables.jobs import Job
from app.registry.tables.owned import (
    Owned,
    limited_to,
    may_edit,
    noun_of,
    principal_of,
    product_visibility,
    require_right,
    unseen_thing,
)
from app.registry.tables.people import User

DISABLED = "The account of {name} is disabled, so nothing new starts for it."
UNSEEN = "{name} may no longer see the {noun} that this needs."
TOO_OPEN = (
    "This is private, so it cannot become part of this {noun}, which others see. Make the {noun} "
    "private first, or leave this empty."
)
CODE = "forbidden"  # of jobs that fail for these reasons
UPKEEP = {
    JobKind.INSPECT_BASE,
    JobKind.KEEP_IN_FOLDER,
    JobKind.SWEEP,
    JobKind.MAKE_THUMBNAILS,
    JobKind.MEASURE_LOOKS,
    JobKind.CHECK_FILES,
    JobKind.DELETE_DRAFTS,
}
"""What nobody orders; it is done for the first person, also if that account is disabled."""


def making_as_owner(session: Session, job: Job) -> AbstractContextManager[None]:
    """What is made inside belongs to the owner of a job; private if the job or its subject is."""
    return making_for(job.owner_id, product_visibility(session, job))


@contextmanager
def seeing_as_owner(session: Session, job: Job, *, accounts: bool) -> Iterator[None]:
    """Within the block the statements of a session find only what the owner of a job may see.

    Only for reading. Without `accounts` all is found.
    """
    owner = session.get(User, job.owner_id) if accounts else None
    with nullcontext() if owner is None else limited_to(session, _principal(owner)):
        yield


def refusal(session: Session, job: Job) -> str | None:
    """Why a job may not start for its owner, as a sentence; None: it may."""
    owner = session.get(User, job.owner_id)
    if owner is None:
        return None
    is_upkeep = owner.key == FIRST_USER and getattr(job, "kind", None) in UPKEEP
    if owner.disabled_at is not None and not is_upkeep:
        return DISABLED.format(name=owner.name)
    thing = unseen_thing(session, _principal(owner), job)
    return UNSEEN.format(name=owner.name, noun=noun_of(thing)) if thing is not None else None


def may_add(session: Session, made: Owned, thing: Owned) -> bool:
    """True if what its owner makes may become part of a thing: they may change that, and nothing
    private is shown to others.
    """
    if made.visibility == Visibility.PRIVATE and thing.visibility != Visibility.PRIVATE:
        return False
    owner = session.get(User, made.owner_id) if made.owner_id != thing.owner_id else None
    return owner is None or may_edit(session, _principal(owner), thing)


def can_edit(session: Session, thing: Owned) -> bool:
    """True if the person of this session may change a thing."""
    principal = principal_of(session)
    return principal is None or may_edit(session, principal, thing)


def require_edit(session: Session, thing: Owned) -> None:
    """Raise Forbidden if the person of this session may not change a thing."""
    principal = principal_of(session)
    if principal is not None:
        require_right(session, principal, thing)


def require_addition(session: Session, made: Owned, thing: Owned, field: str) -> None:
    """Raise Forbidden or InvalidInput if what a new job makes may not become part of a thing."""
    require_edit(session, thing)
    if made.visibility == Visibility.PRIVATE and thing.visibility != Visibility.PRIVATE:
        raise invalid_field(field, TOO_OPEN.format(noun=noun_of(thing)))


def _principal(owner: User) -> Principal:
    return Principal(owner.key, Role(owner.role), owner.name)
