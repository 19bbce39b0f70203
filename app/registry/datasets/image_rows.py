"""Deletes the rows of images, with everything that only they need."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.db import in_chunks
from app.registry.tables.auto_caption import CaptionProposal
from app.registry.tables.datasets import (
    CaptionRevision,
    DatasetEdit,
    Image,
    ImageCaption,
    ImageMeasure,
)


def delete_image_rows(session: Session, images: Sequence[Image]) -> set[str]:
    """Delete the rows of these images for good; return every caption that they ever had."""
    captions: set[str] = set()
    keys = [image.key for image in images]
    for chunk in in_chunks(keys):
        for table in (CaptionRevision, ImageCaption, CaptionProposal):
            of_images = col(table.image_id).in_(chunk)
            captions.update(session.exec(select(table.caption).where(of_images)))
            session.connection().execute(sa.delete(table).where(of_images))
    _delete_from_edits(session, {image.dataset_id for image in images}, set(keys))
    for image in images:
        session.delete(image)
    session.flush()
    _delete_measures(session, {image.clean_sha256 for image in images})
    return captions


def _delete_from_edits(session: Session, dataset_ids: set[int], image_ids: set[int]) -> None:
    """Remove the images from the edits of their datasets; an edit of no other image goes."""
    edits = select(DatasetEdit).where(col(DatasetEdit.dataset_id).in_(dataset_ids))
    for edit in session.exec(edits).all():
        kept = [row for row in edit.before if row["image_id"] not in image_ids]
        if kept and len(kept) < len(edit.before):
            edit.before = kept
            session.add(edit)
        elif not kept:
            unlink = sa.update(CaptionRevision).where(col(CaptionRevision.edit_id) == edit.key)
            session.connection().execute(unlink.values(edit_id=None))
            session.delete(edit)
    session.flush()


def _delete_measures(session: Session, hashes: set[str]) -> None:
    for chunk in in_chunks(hashes):
        used = session.exec(select(Image.clean_sha256).where(col(Image.clean_sha256).in_(chunk)))
        unused = set(chunk) - set(used)
        of_unused = col(ImageMeasure.clean_sha256).in_(unused)
        session.connection().execute(sa.delete(ImageMeasure).where(of_unused))
