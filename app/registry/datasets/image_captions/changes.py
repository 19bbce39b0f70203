"""Changes the captions of an image: what they say, how often each is used, and which there are.

The history says what they said, who wrote it and when, and leads back to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets import service
from app.registry.datasets.caption_writes import (
    BY_HAND,
    CaptionOrigin,
    CaptionPlace,
    add_revision,
    last_version,
    last_versions,
    write_caption,
)
from app.registry.datasets.several_captions import OneCaption, captions_of_image, further_captions
from app.registry.db import in_chunks
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.tables.datasets import (
    MAX_SHARE,
    CaptionRevision,
    CaptionSource,
    Image,
    ImageCaption,
)
from worker.core.words import CaptionKind

SHOWN = 200


@dataclass(frozen=True)
class CaptionChange:
    """A change of a caption; None leaves a value as it is.

    `seen_version`: the version that the user edited. If it has changed since, nothing is written.
    """

    caption: str | None = None
    share: int | None = None
    seen_version: int | None = None


def change_caption(
    session: Session,
    image_id: int,
    kind: CaptionKind,
    change: CaptionChange,
    *,
    origin: CaptionOrigin = BY_HAND,
) -> OneCaption:
    """The caption of this kind after the change; it is added if the image has none.

    Raises InvalidInput, NotFound, and Conflict with the new text as `service.caption_image` does.
    """
    if change.share is not None and not 1 <= change.share <= MAX_SHARE:
        raise invalid_field("share", f"Enter a share from 1 to {MAX_SHARE}.")
    image = service.get_image(session, image_id, lock=True)
    if kind == image.caption_kind:
        if change.caption is not None:
            service.caption_image(
                session,
                image_id,
                change.caption,
                seen_version=change.seen_version,
                origin=origin,
            )
        if change.share is not None:
            image.caption_share = change.share
        session.add(image)
    else:
        _change_further(session, image, kind, change, origin)
    session.flush()
    return next(one for one in captions_of_image(session, image) if one.kind == kind)


def _change_further(
    session: Session, image: Image, kind: CaptionKind, change: CaptionChange, origin: CaptionOrigin
) -> None:
    row = _further(session, image, kind)
    if row is None:
        if change.caption is None:
            raise NotFound(f"This image has no caption of the kind {kind}.")
        row = ImageCaption(
            image_id=image.key, kind=kind, version=last_version(session, image, kind)
        )
    text = row.caption if change.caption is None else service.checked_caption(change.caption)
    if text != row.caption or row.id is None:
        if row.id is not None:
            service.require_seen(change.seen_version, row.version, row.caption)
        place = CaptionPlace(image.key, kind, row.version)
        row.caption, row.version = text, add_revision(session, place, text, origin)
    if change.share is not None:
        row.share = change.share
    session.add(row)


def remove_caption(session: Session, image_id: int, kind: CaptionKind) -> None:
    """Remove a caption of an image that has several; its history stays, with its share.

    Raises NotFound, and Conflict for the first one.
    """
    image = service.get_image(session, image_id, lock=True)
    if kind == image.caption_kind:
        raise Conflict("The first caption of an image stays. Empty it instead.")
    if _further(session, image, kind) is None:
        raise NotFound(f"This image has no caption of the kind {kind}.")
    remove_further(session, {(image_id, kind)})


def write_further(
    session: Session, texts: Mapping[tuple[int, str], str], origin: CaptionOrigin
) -> None:
    """Write captions after the first one, by image and kind, and add those that are missing.

    In few statements; nothing is compared or locked here.
    """
    image_ids = {image_id for image_id, _ in texts}
    known = further_captions(session, image_ids)
    rows = {(row.image_id, row.kind): row for found in known.values() for row in found}
    last = last_versions(session, image_ids)
    for (image_id, kind), text in texts.items():
        row = rows.get((image_id, kind)) or ImageCaption(
            image_id=image_id, kind=kind, version=last.get((image_id, kind), 0)
        )
        place = CaptionPlace(image_id, kind, row.version)
        row.caption, row.version = text, add_revision(session, place, text, origin)
        session.add(row)
    session.flush()


def remove_further(session: Session, places: Collection[tuple[int, str]]) -> None:
    """Remove captions after the first one, by image and kind, in few statements."""
    now = (
        (col(CaptionRevision.image_id) == col(ImageCaption.image_id))
        & (col(CaptionRevision.kind) == col(ImageCaption.kind))
        & (col(CaptionRevision.version) == col(ImageCaption.version))
    )
    for chunk in in_chunks({image_id for image_id, _ in places}):
        query = select(ImageCaption, CaptionRevision).outerjoin(CaptionRevision, now)
        for row, written in session.exec(query.where(col(ImageCaption.image_id).in_(chunk))).all():
            if (row.image_id, row.kind) not in places:
                continue
            if written is not None:
                written.removed_share = row.share
                session.add(written)
            session.delete(row)
    session.flush()


def removed_share(session: Session, image: Image, kind: CaptionKind) -> int | None:
    """The share that a caption had when it was removed; None if the image has one of this kind."""
    if kind == image.caption_kind or _further(session, image, kind) is not None:
        return None
    revisions = select(CaptionRevision).where(
        CaptionRevision.image_id == image.key, CaptionRevision.kind == kind
    )
    written = session.exec(revisions.order_by(col(CaptionRevision.version).desc())).first()
    return written.removed_share if written else None


def change_first_kind(session: Session, image_id: int, kind: CaptionKind) -> Image:
    """Say what the first caption of an image is. Raises Conflict if another one is of that kind."""
    image = service.get_image(session, image_id, lock=True)
    if kind == image.caption_kind:
        return image
    if _further(session, image, kind) is not None:
        raise Conflict(f"This image has another caption of the kind {kind}. Remove that one first.")
    image.caption_kind = kind
    image.caption_version = max(image.caption_version, last_version(session, image, kind))
    write_caption(session, image, image.caption, BY_HAND)
    session.flush()
    return image


def _further(session: Session, image: Image, kind: CaptionKind) -> ImageCaption | None:
    rows = further_captions(session, [image.key]).get(image.key, [])
    return next((row for row in rows if row.kind == kind), None)


@api_record
class WrittenCaption:
    """A version of a caption."""

    kind: CaptionKind = Field(description="Which of the captions it is.")
    version: int = Field(description="Its version, to restore it.")
    caption: str = Field(description="What it said.")
    source: CaptionSource | None = Field(description="Who wrote it; null: not known.")
    source_name: str | None = Field(description="The file or the provider, if any.")
    written_at: datetime = Field(description="When it was written.")
    is_current: bool = Field(description="True if the caption still says this.")
    restored_from: datetime | None = None
    """When the version was written that it restored; null: it is no such one, or that version is
    not kept."""

    @property
    def writer(self) -> str:
        """The writer, as “from boat.txt”."""
        if self.source is None:
            return "before Brushwork kept names"
        words = self.source.label
        if not self.source_name:
            return words
        if self.source == CaptionSource.IMPORT:
            return f"from {self.source_name}"
        if self.source == CaptionSource.PROVIDER:
            return self.source_name
        of = f" of {self.restored_from:%Y-%m-%d %H:%M}" if self.restored_from else ""
        return f"{words}, {self.source_name}{of}"


def caption_history(
    session: Session, image: Image, *, most: int | None = SHOWN
) -> list[WrittenCaption]:
    """The last changes of all captions of an image, newest first; `most` None: all of them."""
    current = {(one.kind, one.version) for one in captions_of_image(session, image)}
    query = select(CaptionRevision).where(CaptionRevision.image_id == image.key)
    newest = query.order_by(col(CaptionRevision.created_at).desc(), col(CaptionRevision.id).desc())
    rows = session.exec(newest.limit(most)).all()
    written_at = {(row.kind, _version_name(row.version)): row.created_at for row in rows}
    return [
        WrittenCaption(
            CaptionKind(row.kind),
            row.version,
            row.caption,
            CaptionSource(row.source) if row.source else None,
            row.source_name,
            row.created_at,
            (row.kind, row.version) in current,
            written_at.get((row.kind, row.source_name or ""))
            if row.source == CaptionSource.RESTORE
            else None,
        )
        for row in rows
    ]


def _version_name(version: int) -> str:
    """The name of the version that a caption was restored from."""
    return f"version {version}"


def restore_caption(session: Session, image_id: int, kind: CaptionKind, version: int) -> OneCaption:
    """Let a caption say again what it said in this version, as a new version.

    A caption that was removed comes back, with the share that it had. Raises NotFound if there is
    no such version.
    """
    image = service.get_image(session, image_id, lock=True)
    query = select(CaptionRevision).where(
        CaptionRevision.image_id == image.key,
        CaptionRevision.kind == kind,
        CaptionRevision.version == version,
    )
    row = session.exec(query).first()
    if row is None:
        raise NotFound(
            "This version of the caption is gone. Reload the page to see those that are kept."
        )
    origin = CaptionOrigin(CaptionSource.RESTORE, _version_name(version))
    change = CaptionChange(row.caption, share=removed_share(session, image, kind))
    return change_caption(session, image_id, kind, change, origin=origin)
