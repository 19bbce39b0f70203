"""The names of owners, where answers and pages show whose a thing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from app.registry.db import Database
from app.registry.people import service

_names: ContextVar[Callable[[], Mapping[int, str]] | None] = ContextVar("names", default=None)


@contextmanager
def naming_owners(database: Database) -> Iterator[None]:
    """Within the block owners have names, which are read when the first of them is asked for."""

    @cache
    def read() -> Mapping[int, str]:
        with database.read() as session:
            return service.names(session)

    token = _names.set(read)
    try:
        yield
    finally:
        _names.reset(token)


def owner_name(thing: Any) -> str | None:
    """The name of the owner of a thing; None without accounts."""
    read = _names.get()
    return None if read is None else read().get(thing.owner_id, "")
