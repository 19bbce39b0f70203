"""The user or program behind the current writes, for the column `actor` of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_CHARACTERS = 80

_of_request: ContextVar[str | None] = ContextVar("actor", default=None)
_of_process: list[str | None] = [None]


def current_actor() -> str | None:
    """The actor of this request, else of this process; None if nobody was named."""
    return _of_request.get() or _of_process[0] or None


def set_process_actor(actor: str) -> None:
    """Name the actor of everything that this process does itself, in all of its threads."""
    _of_process[0] = actor[:MAX_CHARACTERS]


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Name the actor of what is done inside; threads started for a request inherit it."""
    token = _of_request.set(actor[:MAX_CHARACTERS])
    try:
        yield
    finally:
        _of_request.reset(token)


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
