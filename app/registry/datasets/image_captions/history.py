"""The history of an image's captions: what they said, who wrote it and when; and the way back."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets import service
from app.registry.datasets.caption_writes import CaptionOrigin
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    change_caption,
    removed_share,
)
from app.registry.datasets.several_captions import OneCaption, captions_of_image
from app.registry.errors import NotFound
from app.registry.tables.datasets import CaptionRevision, CaptionSource, Image
from worker.core.words import CaptionKind

SHOWN = 200


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
    restored_from: datetime | None = Field(
        default=None,
        description="When the version was written that it restored; null: it is no such one, or "
        "that version is not kept.",
    )

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
