"""Refuses rows that refer to a file that was deleted a moment before.

A file is stored before the row that refers to it. If the same bytes were stored before, and what
referred to them is deleted for good in between, the new row would refer to nothing. So files are
deleted while no such row can be written (`lock_deletion`), and whoever writes one whose file was
deleted lately looks whether it is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs.references import HASH, reference_columns
from app.registry.db import advisory_lock, allow_idling
from app.registry.storage.store import BlobStore, StorageUnavailable
from app.registry.tables.blobs import ErasedHash

DELETION_LOCK = 0x62727364


class JustDeleted(StorageUnavailable, title="Deleted at the same moment", code="just_deleted"):
    """The file was deleted for good while the same bytes were stored again."""


def make_guard(store: BlobStore) -> Callable[[Session], None]:
    """A check of the rows that a session is about to write; it raises JustDeleted."""

    def check(session: Session) -> None:
        changed = (*session.new, *session.dirty)  # a few hundred at most
        hashes = {sha256 for row in changed for sha256 in hashes_of(row)}
        if not hashes:
            return
        with session.no_autoflush:
            advisory_lock(session, DELETION_LOCK, shared=True)
            erased = select(ErasedHash.sha256).where(col(ErasedHash.sha256).in_(hashes))
            for sha256 in set(session.exec(erased)):
                if not store.exists(sha256):
                    raise JustDeleted(
                        "The same file was deleted for good at this moment. Send it again."
                    )

    return check


def lock_deletion(session: Session) -> None:
    """Until this transaction ends, wait for those that write references, and let none begin.

    It may take as long as the storage does: files that go on being deleted without the lock could
    be those of new rows.
    """
    allow_idling(session.connection())
    advisory_lock(session, DELETION_LOCK)


def hashes_of(row: Any) -> Iterator[str]:
    """The files that a row refers to, with some hashes that are not of files."""
    named, texts = reference_columns(sa.inspect(row).mapper.local_table)
    for column in named:
        if value := getattr(row, column.name):
            yield value
    for column in texts:
        value = getattr(row, column.name)
        yield from HASH.findall(json.dumps(value)) if value else ()
