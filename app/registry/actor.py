"""The user or program behind the current reads and writes.

The actor is a text for the column `actor` of events. With accounts a request also has a principal,
whose rights limit what its sessions read and write; workers and the command line have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

MAX_CHARACTERS = 80
FIRST_USER = 1  # owns what was made without accounts
MAX_BYTES = 2**60  # of a quota, as the next two
MAX_MINUTES = 6_000_000
MAX_WAITING = 1_000_000


class Role(StrEnum):
    """The role of a person; what each may do is in `app.web.access.rights`."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


ROLE_WORDS = {Role.ADMIN: "Administrator", Role.MEMBER: "Member", Role.VIEWER: "Viewer"}


class Visibility(StrEnum):
    """Who besides the owner sees and uses a thing; shares name further people."""

    STUDIO = "studio"
    STUDIO_EDIT = "studio_edit"
    PRIVATE = "private"


@dataclass(frozen=True)
class Limits:
    """What a person may take; None: as much as there is."""

    disk_bytes: int | None = None
    device_minutes: int | None = None  # in 30 days
    waiting_jobs: int | None = None


@dataclass(frozen=True)
class Principal:
    """The person of a request, their address, and the visibility of what they make."""

    user_id: int
    role: Role
    name: str = ""
    makes: Visibility = Visibility.STUDIO
    address: str = ""

    @property
    def is_limited(self) -> bool:
        """False for an administrator, who sees and changes everything."""
        return self.role is not Role.ADMIN


_of_request: ContextVar[str | None] = ContextVar("actor", default=None)
_of_process: list[str | None] = [None]
_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)
_maker: ContextVar[tuple[int, Visibility]] = ContextVar(
    "maker", default=(FIRST_USER, Visibility.STUDIO)
)


def current_actor() -> str | None:
    """The actor of this request, else of this process; None if nobody was named."""
    return _of_request.get() or _of_process[0] or None


def set_process_actor(actor: str) -> None:
    """Name the actor of everything that this process does itself, in all of its threads."""
    _of_process[0] = actor[:MAX_CHARACTERS]


@contextmanager
def acting_as(actor: str, principal: Principal | None = None) -> Iterator[None]:
    """Name the actor of what is done inside; threads started for a request inherit it.

    What a principal makes inside is theirs, and limited to their rights.
    """
    token, person = _of_request.set(actor[:MAX_CHARACTERS]), _principal.set(principal)
    try:
        if principal is None:
            yield
        else:
            with making_for(principal.user_id, principal.makes):
                yield
    finally:
        _of_request.reset(token)
        _principal.reset(person)


def current_principal() -> Principal | None:
    """The person of this request; None without accounts, in workers and on the command line."""
    return _principal.get()


def current_user_id() -> int | None:
    """The number of the person of this request, if they have an account."""
    principal = _principal.get()
    return principal.user_id if principal else None


def current_address() -> str | None:
    """The address from which they send it."""
    principal = _principal.get()
    return principal.address or None if principal else None


@contextmanager
def making_for(owner_id: int, visibility: str) -> Iterator[None]:
    """What is made inside belongs to this person; it limits no one, so workers use it for jobs."""
    token = _maker.set((owner_id, Visibility(visibility)))
    try:
        yield
    finally:
        _maker.reset(token)


def maker_id() -> int:
    """The owner of what is made now."""
    return _maker.get()[0]


def made_visibility() -> str:
    """The visibility of what is made now."""
    return _maker.get()[1].value


def actor_text(actor: str | None) -> str:
    """The words for an actor on a page; empty where they would tell nothing, as for a worker."""
    kind, _, which = (actor or "").partition(":")
    words = {
        "session": f"session {which}",
        "basic": "a program",
        "bearer": "a program",
        "cli": f"{which} on the command line",
    }
    return words.get(kind, "")
