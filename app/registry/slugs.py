"""Slugs: short addresses made from names, unique within a table."""

from __future__ import annotations

import re
import secrets
import unicodedata
from typing import Annotated, Any, TypeVar

from pydantic import Field
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from app.registry.actor import Visibility, made_visibility
from app.registry.db import MAX_ID
from app.registry.errors import Conflict

MAX_SLUG = 80
LONGEST_SLUG = 140  # that the tables hold
RANDOM_BYTES = 4  # in the slug of a private thing
TRIES = 4  # to find a slug that nobody takes at the same moment
Row = TypeVar("Row", bound=SQLModel)
RESERVED = frozenset(  # used by addresses of pages and of the API
    {"covers", "deleted", "extract", "import", "imports", "merge", "overlap"}
)
RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
Number = Annotated[int, Field(ge=0, le=MAX_ID)]
"""What is counted, such as steps or the versions of a caption."""
Reference = RowId | Annotated[str, Field(min_length=1, max_length=LONGEST_SLUG)]
"""A row in a request: its id or its slug."""


def id_of(session: Session, table: type[SQLModel], reference: int | str) -> int:
    """The id that a reference names, of a deleted row too: text of digits is an id, as no slug is.

    0, which no row has, if none has the slug.
    """
    text = str(reference)
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 11 and int(text) <= MAX_ID else 0
    slug, key = col(table.slug), col(table.id)  # type: ignore[attr-defined]
    found: int | None = session.exec(select(key).where(slug == text)).first()
    return found or 0


def slugify(name: str, *, fallback: str = "untitled") -> str:
    """The name in `a-z0-9-`, safe in URLs and file names; never a number, which is an id."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")
    slug = f"no-{slug}" if slug.isdigit() else slug
    return slug[:MAX_SLUG].strip("-") or fallback


def private_slug(slug: str) -> str:
    """The slug with an end at random, so that it is not guessed."""
    return f"{slug}-{secrets.token_hex(RANDOM_BYTES)}"


def unique_slug(session: Session, table: type[SQLModel], name: str, *, fallback: str) -> str:
    """A slug that no row of `table` and no page uses; deleted rows keep theirs.

    That of a private thing ends at random.
    """
    slug = slugify(name, fallback=fallback)
    if made_visibility() == Visibility.PRIVATE:
        slug = private_slug(slug)
    column = col(table.slug)  # type: ignore[attr-defined]
    alike = select(column).where((column == slug) | column.startswith(f"{slug}-"))
    session.flush()  # a query of the connection does not; it finds what is hidden, too
    taken = RESERVED | set(session.connection().execute(alike).scalars())
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
