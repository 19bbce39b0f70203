"""Writes captions and fields of many images in few statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.db import in_chunks, utcnow
from app.registry.tables.datasets import CaptionRevision, CaptionSource, Image, ImageCaption

REVISION = ("image_id", "kind", "version", "caption", "source", "edit_id", "created_at")


@dataclass(frozen=True)
class CaptionWrite:
    """A new text. `kind` is "" for the first caption of the image."""

    image_id: int
    kind: str
    caption: str


def write_captions(
    session: Session, writes: Sequence[CaptionWrite], source: CaptionSource, edit_id: int
) -> None:
    """Change these captions and add their revisions; nothing is compared or locked here."""
    for kind in {write.kind for write in writes}:
        texts = {write.image_id: write.caption for write in writes if write.kind == kind}
        if kind:
            _write_others(session, kind, texts, (source, edit_id))
        else:
            _write_firsts(session, texts, (source, edit_id))
    _forget_loaded(session)


def _write_firsts(
    session: Session, texts: dict[int, str], origin: tuple[CaptionSource, int]
) -> None:
    changed = sa.update(Image).where(col(Image.id) == sa.bindparam("image"))
    newer = {"caption_version": col(Image.caption_version) + 1}
    _run_with_texts(session, changed.values(newer), texts)
    written = sa.select(
        col(Image.id), col(Image.caption_kind), col(Image.caption_version), col(Image.caption)
    )
    for chunk in in_chunks(texts):
        _add_revisions(session, written.where(col(Image.id).in_(chunk)), origin)


def _write_others(
    session: Session, kind: str, texts: dict[int, str], origin: tuple[CaptionSource, int]
) -> None:
    image_id, of_kind = col(ImageCaption.image_id), col(ImageCaption.kind) == kind
    changed = sa.update(ImageCaption).where(image_id == sa.bindparam("image"), of_kind)
    _run_with_texts(session, changed.values({"version": col(ImageCaption.version) + 1}), texts)
    written = sa.select(
        image_id, col(ImageCaption.kind), col(ImageCaption.version), col(ImageCaption.caption)
    )
    for chunk in in_chunks(texts):
        _add_revisions(session, written.where(image_id.in_(chunk), of_kind), origin)


def _run_with_texts(session: Session, update: sa.Update, texts: dict[int, str]) -> None:
    rows = [{"image": image_id, "text": text} for image_id, text in texts.items()]
    session.connection().execute(update.values({"caption": sa.bindparam("text")}), rows)


def _add_revisions(
    session: Session,
    written: sa.Select[*tuple[Any, ...]],
    origin: tuple[CaptionSource, int],
) -> None:
    source, edit_id = origin
    now = sa.literal(utcnow(), sa.DateTime())
    query = written.add_columns(sa.literal(str(source)), sa.literal(edit_id), now)
    insert = sa.insert(CaptionRevision).from_select(REVISION, query)
    session.connection().execute(insert)


def write_fields(session: Session, values: Iterable[tuple[int, dict[str, Any]]]) -> None:
    """Change fields of images; "deleted" stands for the time of deletion."""
    same: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for image_id, fields in values:
        if fields:
            same.setdefault(tuple(fields.items()), []).append(image_id)
    for items, image_ids in same.items():
        columns = dict(items)
        if "deleted" in columns:
            columns["deleted_at"] = utcnow() if columns.pop("deleted") else None
        for chunk in in_chunks(image_ids):
            update = sa.update(Image).where(col(Image.id).in_(chunk)).values(columns)
            session.connection().execute(update)
    _forget_loaded(session)


def _forget_loaded(session: Session) -> None:
    """Let the session read again what it loaded before these statements changed it."""
    for row in session.identity_map.values():
        if isinstance(row, Image | ImageCaption):
            session.expire(row)
