"""Who may see an image that is named by its hash alone: whoever sees a row that shows it.

The columns are those of `references`, so that new tables are covered. JSON is searched only in
COLLECTIONS: elsewhere it may contain texts of people, who could write a hash into them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from app.registry.actor import Principal, Visibility
from app.registry.blobs.references import reference_columns
from app.registry.db import PRINCIPAL
from app.registry.tables.adapters import AdapterFile, AdapterVersion
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.owned import class_of, is_limited, principal_of, thing_of
from app.registry.tables.renders import SourceUser
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Checkpoint

WEIGHTS = (AdapterVersion, AdapterFile, Checkpoint)  # their files are no images
ROWS_ASKED = 100  # rows of one table that are asked whether their thing is private
COLLECTIONS = (
    (DatasetVersion.items, '"clean_sha256": "{}"'),  # quotes in captions are escaped
    (BlindTest.references, '"{}"'),
    (BlindTest.controls, '"{}"'),
)
"""JSON columns with hashes of images, and the text by which each names one."""


def may_see_image(session: Session, sha256: str) -> bool:
    """True if the person of this session sees a row that shows this image, deleted ones too."""
    principal = principal_of(session)
    if principal is None:
        return True
    named = [condition for _, condition in _naming(sha256)]
    listed = [
        sa.cast(column, sa.Text).contains(text.format(sha256), autoescape=True)
        for column, text in COLLECTIONS
    ]
    with deleted_too(session):
        for ways in ([*named, _is_uploaded(principal, sha256)], listed):
            query = sa.union_all(*(select(sa.literal(1)).where(way) for way in ways))
            if session.exec(query.limit(1)).first():  # type: ignore[call-overload]
                return True
        files = (col(Thumbnail.small_sha256), col(Thumbnail.large_sha256))
        of_thumbnail = select(Thumbnail.sha256).where(sa.or_(*(one == sha256 for one in files)))
        images = set(session.exec(of_thumbnail)) - {sha256}
    return any(may_see_image(session, image) for image in images)


def is_private_image(session: Session, sha256: str) -> bool:
    """True if, of what the person of this session sees, only private things show this image.

    Always false without accounts, and for an image that they uploaded themselves.
    """
    principal: Principal | None = session.info.get(PRINCIPAL)
    if principal is None:
        return False
    if session.exec(select(SourceUser).where(_is_uploaded(principal, sha256))).first():
        return False
    things = []
    with deleted_too(session):
        for table, condition in _naming(sha256):
            for row in session.exec(select(table).where(condition).limit(ROWS_ASKED)):
                things.append(thing_of(session, row))
    return bool(things) and all(is_private(thing) for thing in things)


def is_private(thing: Any) -> bool:
    """True for a thing that only its owner sees, and those with whom it is shared."""
    return thing is not None and thing.visibility == Visibility.PRIVATE


def _is_uploaded(principal: Principal, sha256: str) -> Any:
    return (col(SourceUser.sha256) == sha256) & (col(SourceUser.user_id) == principal.user_id)


def _naming(sha256: str) -> Iterator[tuple[type[Any], sa.ColumnElement[bool]]]:
    """(table, condition on its rows that they name this image) of each table with images."""
    for table, columns in _tables():
        yield table, sa.or_(*(column == sha256 for column in columns))


@functools.cache
def _tables() -> list[tuple[type[Any], list[Any]]]:
    found = []
    for table in SQLModel.metadata.sorted_tables:
        columns, _ = reference_columns(table)
        mapped = class_of(table.name)
        if columns and is_limited(table.name) and mapped not in WEIGHTS:
            found.append((mapped, [getattr(mapped, column.key) for column in columns]))
    return found
