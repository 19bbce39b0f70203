"""Writes the rows of uploaded images, with what the files said about them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs import findings, thumbnails
from app.registry.datasets import measures
from app.registry.datasets.caption_writes import (
    CaptionOrigin,
    CaptionPlace,
    add_revision,
    from_file,
    last_version,
    write_caption,
)
from app.registry.datasets.captions import CaptionFromFile
from app.registry.datasets.sent_files.metadata_lines import NOTHING_ELSE, ImageFacts
from app.registry.datasets.sent_files.pairing import PairedCaptions
from app.registry.datasets.several_captions import KindCaption
from app.registry.db import in_chunks
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import (
    CaptionProposal,
    CaptionRevision,
    CaptionSource,
    Dataset,
    Image,
    ImageCaption,
    ImageMeasure,
)

STORED = (
    *("filename", "sha256", "clean_sha256", "thumbnail_sha256"),
    *("width", "height", "size_bytes", "note"),
)
"""The facts of a new image that its row has under the same names."""


@dataclass(frozen=True)
class NewImage:
    """An accepted and stored image; `sha256` is the hash of the uploaded file, its identity."""

    filename: str
    sha256: str
    clean_sha256: str  # of the clean PNG
    thumbnail_sha256: str
    width: int
    height: int
    size_bytes: int  # of the uploaded file
    caption: str | None = None
    caption_file: str | None = None
    note: str | None = None
    small_sha256: str | None = None  # of the small thumbnail; None: the thumbnail is small enough
    measured: dict[str, Any] = field(default_factory=dict)  # by the columns of `image_measure`
    facts: ImageFacts = NOTHING_ELSE
    facts_file: str | None = None
    unused_captions: tuple[CaptionFromFile, ...] = ()  # others that were sent for it


def add_new(session: Session, dataset_id: int, new: NewImage) -> Image:
    """The row of an image that the dataset does not have, with captions and rules."""
    stored = {name: getattr(new, name) for name in STORED}
    image = Image(dataset_id=dataset_id, **stored)
    _take_settings(image, new.facts)
    session.add(image)
    session.flush()
    _save_made(session, new)
    keep_in_history(session, image, new.unused_captions)
    _write_captions(session, image, new)
    return image


def remove_new(
    session: Session, dataset_id: int, images: Collection[Image], *, whole: bool
) -> None:
    """Delete the rows of images that were just added; `whole`: and of the dataset."""
    execute = session.connection().execute
    for chunk in in_chunks(image.key for image in images):
        for table in (CaptionRevision, ImageCaption, CaptionProposal):
            execute(sa.delete(table).where(col(table.image_id).in_(chunk)))
        execute(sa.delete(Image).where(col(Image.id).in_(chunk)))
    for chunk in in_chunks({image.clean_sha256 for image in images}):
        measured = col(ImageMeasure.clean_sha256)
        is_used = sa.exists().where(col(Image.clean_sha256) == measured)
        execute(sa.delete(ImageMeasure).where(measured.in_(chunk), ~is_used))
    if whole:
        execute(sa.delete(Dataset).where(col(Dataset.id) == dataset_id))


def add_again(session: Session, image: Image, new: NewImage) -> tuple[CaptionFromFile, ...]:
    """Bring back or repair an image of the dataset; return the captions that are not used.

    An image that has a caption keeps it and everything else; one without gets those of the file.
    """
    image.deleted_at = None
    if findings.problems(session, [image.clean_sha256, image.thumbnail_sha256]):
        # still damaged: another version of the decoder wrote other bytes
        image.clean_sha256, image.thumbnail_sha256 = new.clean_sha256, new.thumbnail_sha256
        _save_made(session, new)
    sent = [*new.unused_captions]
    if new.caption and image.caption:
        sent.insert(0, CaptionFromFile(new.caption, new.caption_file or ""))
    elif new.caption:
        caption = CaptionFromFile(new.caption, new.caption_file or "")
        _fill_captions(session, image, caption, new.facts, from_file(new.facts_file))
    unused = tuple(one for one in sent if one.text != image.caption)
    keep_in_history(session, image, unused)
    session.add(image)
    return unused


def _write_captions(session: Session, image: Image, new: NewImage) -> None:
    """The captions of a new image."""
    origin = from_file(new.caption_file)
    first, *others = new.facts.captions or (None,)
    if first is not None:
        image.caption_kind, image.caption_share = first.kind, first.share
    if new.caption:
        write_caption(session, image, new.caption, origin)
    for one in others:
        if one is not None and one.caption:
            _add_further(session, image, one, from_file(new.facts_file))


def _add_further(
    session: Session, image: Image, one: KindCaption, origin: CaptionOrigin, *, version: int = 0
) -> None:
    """Add a caption of a kind that the image does not have; `version`: its last one, if any."""
    version = add_revision(session, CaptionPlace(image.key, one.kind, version), one.caption, origin)
    session.add(
        ImageCaption(
            image_id=image.key, kind=one.kind, caption=one.caption, share=one.share, version=version
        )
    )


def _take_settings(image: Image, facts: ImageFacts) -> None:
    """The settings of a file, where the image has those of a new one."""
    if image.repeats == 1:
        image.repeats = facts.repeats or 1
    image.never_flip = image.never_flip or bool(facts.never_flip)
    image.set_aside = image.set_aside or bool(facts.set_aside)
    if image.focus is None and facts.focus is not None:
        image.focus_x, image.focus_y = facts.focus


def add_loose(session: Session, image: Image, loose: PairedCaptions) -> tuple[CaptionFromFile, ...]:
    """Add the facts of a file to an image that is there already; return the unused captions.

    It fills what the image does not have yet: captions of each kind, repeats, the focus point and
    so on. Whatever somebody wrote or set stays. Of another image of the same name, only the caption
    counts, as that of a text file does.
    """
    caption = loose.caption
    facts = loose.facts if _describes(loose, image) else NOTHING_ELSE
    _fill_captions(session, image, caption, facts, from_file(loose.facts_file))
    unused = () if caption.text in ("", image.caption) else (caption,)
    _take_settings(image, facts)
    session.add(image)
    keep_in_history(session, image, unused)
    return unused


def _fill_captions(
    session: Session,
    image: Image,
    caption: CaptionFromFile,
    facts: ImageFacts,
    origin: CaptionOrigin,
) -> None:
    """Write what files say where an image has no caption; `origin`: of those after the first."""
    first, *others = facts.captions or (None,)
    kinds = set(session.exec(select(ImageCaption.kind).where(ImageCaption.image_id == image.key)))
    if not image.caption and caption.text:
        if first is not None and not image.caption_version and first.kind not in kinds:
            image.caption_kind = first.kind
            image.caption_version = last_version(session, image, first.kind)
        write_caption(session, image, caption.text, from_file(caption.file or None))
    if first is not None and caption.text in ("", image.caption) and image.caption_share == 1:
        image.caption_share = first.share
    for one in others:
        if one.caption and one.kind not in kinds | {image.caption_kind}:
            _add_further(
                session, image, one, origin, version=last_version(session, image, one.kind)
            )


def _describes(loose: PairedCaptions, image: Image) -> bool:
    """True if it is about this very image: by a hash, or else by what both say of it."""
    hashes = loose.facts.hashes
    if not {image.sha256, image.clean_sha256}.isdisjoint(hashes):
        return True
    return image.caption == loose.caption.text or not (image.caption or hashes)


def keep_in_history(session: Session, image: Image, unused: tuple[CaptionFromFile, ...]) -> None:
    """Add captions to the history of an image that are not used, so that none is lost."""
    if not unused:
        return
    of_image = select(CaptionRevision.caption).where(CaptionRevision.image_id == image.key)
    known = {*session.exec(of_image), image.caption}
    fresh = [one for one in unused if one.text not in known]
    for one in fresh:
        place = CaptionPlace(image.key, image.caption_kind, image.caption_version)
        image.caption_version = add_revision(session, place, one.text, from_file(one.file))
    if fresh and image.caption:  # what it still says is the newest
        origin = CaptionOrigin(CaptionSource.RESTORE, f"kept when {fresh[-1].file} came")
        write_caption(session, image, image.caption, origin)


def _save_made(session: Session, new: NewImage) -> None:
    """Store what the decoder made of the upload beside the image: thumbnail and measures."""
    made = Thumbnail(sha256=new.thumbnail_sha256, small_sha256=new.small_sha256)
    thumbnails.save(session, [made])
    if new.measured:
        measures.save(session, new.clean_sha256, new.measured)
