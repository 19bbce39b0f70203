"""The key for searching renders, written whenever a render is stored."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper

from app.registry.adapters.library.search import searched_lines
from app.registry.tables.renders import Render


def text_of(render: Render) -> str:
    """The searched text of a render: its prompt, and its adapters by name and slug."""
    named = (used.get(field) or "" for used in render.adapters for field in ("name", "slug"))
    return searched_lines([render.prompt, *dict.fromkeys(named)])


@event.listens_for(Render, "before_insert")
@event.listens_for(Render, "before_update")
def _write_key(_mapper: Mapper[Any], _connection: Connection, render: Render) -> None:
    changed = sa.inspect(render).attrs
    if changed["prompt"].history.has_changes() or changed["adapters"].history.has_changes():
        render.search_text = text_of(render)
