"""The names of owners, where answers and pages show whose a thing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from app.registry.db import Database, Session
from app.registry.people import service

_names: ContextVar[Callable[[Any], Mapping[int, str]] | None] = ContextVar("names", default=None)


@contextmanager
def naming_owners(database: Database) -> Iterator[None]:
    """Within the block owners have names, which are read when the first of them is asked for.

    They are read in the session of the thing, if it is still open: a further one would have to be
    begun and ended, each by a statement.
    """
    found: dict[int, str] = {}

    def read(thing: Any) -> Mapping[int, str]:
        if not found:
            with ExitStack() as stack:
                session: Any = Session.object_session(thing) or stack.enter_context(database.read())
                found.update(service.names(session))
        return found

    token = _names.set(read)
    try:
        yield
    finally:
        _names.reset(token)


def owner_name(thing: Any) -> str | None:
    """The name of the owner of a thing; None without accounts."""
    read = _names.get()
    return None if read is None else read(thing).get(thing.owner_id, "")
