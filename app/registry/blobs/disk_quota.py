"""The disk that a person's things take, and the quota on it.

Every file counts in full for each person whose things name it, once, and as long as they do: things
that were deleted too, until they are deleted for good.
Counting 100,000 images takes about a second, so the result is kept with the person, and what
requests add is added to it. It is counted again when it is a minute old, as workers add to it, too,
and before anything is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from app.registry.actor import current_principal
from app.registry.blobs.deletion import sizes_of
from app.registry.blobs.guard import hashes_of
from app.registry.blobs.references import keeps_blobs, reference_columns
from app.registry.blobs.visible import COLLECTIONS
from app.registry.db import DATABASE, Database, in_chunks, upsert, utcnow
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs.quotas import limits_of
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.blobs import NEVER, BlobCheck, Thumbnail
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import JOB_FILES_KEPT, IoJob
from app.registry.tables.owned import belongs_to, everything, is_limited, thing_of
from app.registry.tables.people import User
from app.registry.tables.renders import Render, SourceUser
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Run, Sweep
from app.registry.wording import aware, size_text

COUNTED_FOR = timedelta(minutes=1)
TEXTS = (
    *COLLECTIONS,
    (AdapterVersion.details, '"source_sha256": "{}"'),
    (IoJob.args, '"{}"'),
    (IoJob.result, '"{}"'),
)
"""JSON columns with hashes of files, and the text by which each names one."""
MAKING_FILES = frozenset(
    {
        JobKind.EXPORT_ADAPTER,
        JobKind.IMPORT_ADAPTER,
        JobKind.FETCH_HUB_ADAPTER,
        JobKind.MERGE_ADAPTERS,
        JobKind.RESIZE_ADAPTER,
        JobKind.SCALE_ADAPTER,
        JobKind.FUSE_ADAPTER,
        JobKind.EXTRACT_ADAPTER,
        JobKind.DRY_RUN,
    }
)
"""The io jobs that people order and whose results are files."""


def disk_use(session: Session, user_id: int) -> int | None:
    """The bytes of all files that a person's things name; None: the store is not known here."""
    database: Database = session.info[DATABASE]
    if not isinstance(database.book_rows, DiskBooking):
        return None
    used, sizes = _count(session, database.book_rows.store, user_id)
    if sizes and session.get_bind().get_execution_options().get("readonly"):
        with database.write() as writer:
            _note_sizes(writer, sizes)
    elif sizes:
        _note_sizes(session, sizes)
    return used


def require_room(database: Database, user_id: int, size: int) -> int | None:
    """The bytes that a person may still store, at least `size`; None: as many as they want.

    Raises QuotaUsedUp.
    """
    with database.read() as session:
        user = session.get_one(User, user_id)
        limit = limits_of(session, user).disk_bytes
        if limit is None:
            return None
        used = _last_count(user)
        if used is None or used + size > limit:
            used = disk_use(session, user_id) or 0
    if used + size > limit:
        raise _used_up(user, used, limit)
    return limit - used


class DiskBooking:
    """Adds new rows of a person's request to the use of their owners, or raises QuotaUsedUp.

    What workers and commands write is kept, also if it is too much.
    """

    def __init__(self, store: BlobStore) -> None:
        self.store = store

    def __call__(self, session: Session, rows: Sequence[Any]) -> None:
        if current_principal() is None:
            return
        files: dict[int, set[str]] = {}
        with everything(session), deleted_too(session):
            for row in rows:
                hashes = set(hashes_of(row))
                thing = thing_of(session, row) if hashes or _makes_files(row) else None
                if thing is not None:
                    files.setdefault(thing.owner_id, set()).update(hashes)
        orders = {row.owner_id for row in rows if _makes_files(row)}
        for user_id in sorted(files):
            is_order = user_id in orders
            book_files(session, self.store, user_id, files[user_id], is_order=is_order)


def book_files(
    session: Session, store: BlobStore, user_id: int, hashes: set[str], *, is_order: bool = False
) -> None:
    """Add files that new rows name to the use of a person until the transaction ends.

    `is_order`: a job will add more, so something has to be left. Raises QuotaUsedUp.
    """
    user = session.get(User, user_id)
    limit = limits_of(session, user).disk_bytes if user is not None else None
    if user is None or limit is None:
        return
    session.refresh(user, with_for_update=True)  # one after another
    added = sum(_known_sizes(session, store, hashes).values())
    used = _last_count(user)
    if used is not None:
        used += added
    if used is None or used + is_order > limit:
        used, sizes = _count(session, store, user_id)
        _note_sizes(session, sizes)
        user.disk_counted_at = utcnow()
    if used + is_order > limit:
        raise _used_up(user, used, limit)
    user.disk_used = used
    session.add(user)


def _makes_files(row: Any) -> bool:
    return isinstance(row, Run | Render | Sweep) or (
        isinstance(row, IoJob) and row.kind in MAKING_FILES
    )


def _last_count(user: User) -> int | None:
    """The use that is kept with a person; None if it is too old."""
    at = user.disk_counted_at
    return None if at is None or utcnow() - aware(at) > COUNTED_FOR else user.disk_used


def _used_up(user: User, used: int, limit: int) -> QuotaUsedUp:
    principal = current_principal()
    is_own = principal is None or principal.user_id == user.key
    whose = "Your things take" if is_own else f"The things of {user.name} take"
    return QuotaUsedUp(
        Quota.DISK,
        f"{whose} {size_text(used)} of the disk, and {size_text(limit)} are allowed, so nothing "
        "was stored. What is deleted for good on the page “Storage” frees space; until then, "
        "deleted things count, too.",
        used=used,
        limit=limit,
    )


# Counting


def _count(session: Session, store: BlobStore, user_id: int) -> tuple[int, dict[str, int]]:
    """(bytes of a person's files, sizes that were not known before)."""
    connection = session.connection()
    files = _files(session, user_id)
    size = col(BlobCheck.size_bytes)
    sized = files.outerjoin(BlobCheck, col(BlobCheck.sha256) == files.c.sha256)
    known = sa.select(sa.func.sum(size), sa.func.count(size) < sa.func.count())
    total, is_partial = connection.execute(known.select_from(sized)).one()
    used = int(total or 0)
    if not is_partial:
        return used, {}
    unknown = sa.select(files.c.sha256).select_from(sized).where(size.is_(None))
    sizes = sizes_of(store, set(connection.execute(unknown).scalars()))
    return used + sum(sizes.values()), sizes


def _files(session: Session, user_id: int) -> sa.Subquery:
    """The hashes of a person's files, each once, with some that are not of files."""
    columns = [
        sa.select(column.label("sha256")).where(
            column.is_not(None), belongs_to(table.name, user_id)
        )
        for table in SQLModel.metadata.sorted_tables
        if is_limited(table.name)
        for column in reference_columns(table)[0]
    ]
    columns.append(sa.select(col(SourceUser.sha256)).where(col(SourceUser.user_id) == user_id))
    if texts := _named_in_texts(session, user_id):
        columns.append(_listed(session, texts))
    held = sa.union(*columns).cte("held")
    thumbnails = [
        sa.select(column).join(held, held.c.sha256 == Thumbnail.sha256).where(column.is_not(None))
        for column in (col(Thumbnail.small_sha256), col(Thumbnail.large_sha256))
    ]
    return sa.union(sa.select(held.c.sha256), *thumbnails).subquery()


def _listed(session: Session, hashes: set[str]) -> sa.Select[Any]:
    """These hashes as rows."""
    listed = sa.literal(json.dumps(sorted(hashes)), sa.Text)
    if session.get_bind().dialect.name == "sqlite":
        return sa.select(sa.func.json_each(listed).table_valued("value").c.value)
    elements = sa.func.json_array_elements_text(sa.cast(listed, sa.JSON))
    return sa.select(elements.table_valued("value").c.value)


def _named_in_texts(session: Session, user_id: int) -> set[str]:
    found: set[str] = set()
    since = utcnow() - JOB_FILES_KEPT
    for attribute, text in TEXTS:
        column: Any = col(attribute)
        table = column.class_.__table__
        start, _, end = text.partition("{}")
        name = re.compile(f"{re.escape(start)}([0-9a-f]{{64}}){re.escape(end)}")
        value = sa.cast(column, sa.Text)
        query = sa.select(value).where(
            belongs_to(table.name, user_id), keeps_blobs(table, since), value.contains(start)
        )
        if table is DatasetVersion.__table__:  # type: ignore[attr-defined]
            query = query.where(col(DatasetVersion.outlives_images))
        for row in session.connection().execute(query).scalars():
            found.update(name.findall(row))
    return found


def _known_sizes(session: Session, store: BlobStore, hashes: Iterable[str]) -> dict[str, int]:
    """The sizes of these files and of their thumbnails."""
    sizes: dict[str, int | None] = {}
    for chunk in in_chunks(hashes):
        made = select(Thumbnail.small_sha256, Thumbnail.large_sha256)
        made = made.where(col(Thumbnail.sha256).in_(chunk))
        sizes |= dict.fromkeys(chunk)
        sizes |= dict.fromkeys(one for pair in session.exec(made) for one in pair if one)
    for chunk in in_chunks(sizes):
        known = select(BlobCheck.sha256, BlobCheck.size_bytes).where(
            col(BlobCheck.sha256).in_(chunk)
        )
        sizes |= dict(session.exec(known).all())
    new = sizes_of(store, {sha256 for sha256, size in sizes.items() if size is None})
    _note_sizes(session, new)
    return {sha256: size for sha256, size in (sizes | new).items() if size is not None}


def _note_sizes(session: Session, sizes: dict[str, int]) -> None:
    changes: dict[str, Any] = {"size_bytes": sa.literal_column("excluded.size_bytes")}
    for chunk in in_chunks(sizes):
        rows = [{"sha256": name, "checked_at": NEVER, "size_bytes": sizes[name]} for name in chunk]
        upsert(session, BlobCheck, rows, changes)
