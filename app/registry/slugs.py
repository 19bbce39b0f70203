"""Slugs: short addresses made from names, unique within a table."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from app.registry.errors import Conflict

MAX_SLUG = 80
TRIES = 4  # to find a slug that nobody takes at the same moment
Row = TypeVar("Row", bound=SQLModel)
RESERVED = frozenset({"deleted"})  # used by addresses of pages


def slugify(name: str, *, fallback: str = "untitled") -> str:
    """The name in `a-z0-9-`, safe in URLs and file names."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")
    return slug[:MAX_SLUG].strip("-") or fallback


def unique_slug(session: Session, table: type[SQLModel], name: str, *, fallback: str) -> str:
    """A slug that no row of `table` and no page uses; deleted rows keep theirs."""
    slug = slugify(name, fallback=fallback)
    column = col(table.slug)  # type: ignore[attr-defined]
    taken = RESERVED | set(
        session.exec(select(column).where((column == slug) | column.startswith(f"{slug}-"))).all()
    )
    if slug not in taken:
        return slug
    number = 2
    while f"{slug}-{number}" in taken:
        number += 1
    return f"{slug}-{number}"


def insert_with_slug(
    session: Session, table: type[Row], name: str, *, fallback: str, **values: Any
) -> Row | None:
    """A new row under a free slug; None if another request just took a unique value of it.

    A request on PostgreSQL does not see the row that another one is about to commit.
    """
    for _ in range(TRIES):
        slug = unique_slug(session, table, name, fallback=fallback)
        row = table(name=name, slug=slug, **values)
        try:
            with session.begin_nested():
                session.add(row)
                session.flush()
        except IntegrityError:
            continue
        return row
    return None


def insert_named(
    session: Session, table: type[Row], name: str, *, fallback: str, **values: Any
) -> Row:
    """A new row under a free slug, where names need not be unique.

    Raises Conflict if other requests took each slug that was tried.
    """
    row = insert_with_slug(session, table, name, fallback=fallback, **values)
    if row is None:
        raise Conflict(f"Others are adding “{name}” at this moment. Try again.")
    return row
