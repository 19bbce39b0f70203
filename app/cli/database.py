"""The check that a command can use the database, before it does anything with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.errors import UnusableDatabase
from app.registry.migrate import complete_search_index, require_current

if TYPE_CHECKING:
    from app.registry.state import AppState


class UnreachableDatabase(UnusableDatabase):
    """The database does not answer; it may do so later."""


def require_database(settings: Settings, *, was_migrated: bool = False) -> None:
    """Raise UnusableDatabase unless the database answers and has the tables of this version.

    Completes its search index, unless it `was_migrated` just now, which did so. Raises
    UnreachableDatabase if it does not answer.
    """
    engine = make_engine(settings.sqlalchemy_url)
    try:
        require_current(engine)
        if not was_migrated:
            complete_search_index(engine)
    except sa.exc.OperationalError as error:
        where = "BRUSHWORK_DATABASE_URL" if settings.database_url else "the data folder"
        raise UnreachableDatabase(
            f"The database does not answer: {first_line(error)}. Start it, or check {where}."
        ) from error
    finally:
        engine.dispose()


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The database as it is, closed at the end."""
    database = Database(make_engine(settings.sqlalchemy_url))
    try:
        yield database
    finally:
        database.dispose()


@contextmanager
def open_state(settings: Settings) -> Iterator[AppState]:
    """The services on a database that can be used, closed at the end. Raises UnusableDatabase."""
    from app.registry.state import make_state  # workers do without

    require_database(settings)
    state = make_state(settings)
    try:
        yield state
    finally:
        state.close()


def first_line(error: sa.exc.OperationalError) -> str:
    """The reason as the database states it; of PostgreSQL's lines, more say where."""
    return str(error.orig).strip().splitlines()[0]
