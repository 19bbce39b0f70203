"""Keys for sorting and searching runs, written whenever a run is stored."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper

from app.registry.adapters.library.search import searched_lines, sort_name
from app.registry.tables.runs import Run

SEARCHED = ("name", "trigger_word", "notes")


def text_of(run: Run) -> str:
    """The searched text of a run."""
    return searched_lines(getattr(run, field) for field in SEARCHED)


@event.listens_for(Run, "before_insert")
@event.listens_for(Run, "before_update")
def _write_keys(_mapper: Mapper[Any], _connection: Connection, run: Run) -> None:
    changed = sa.inspect(run).attrs
    if any(changed[field].history.has_changes() for field in SEARCHED):
        run.sort_name = sort_name(run.name)
        run.search_text = text_of(run)
