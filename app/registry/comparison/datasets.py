"""Differences between two states of a dataset: pinned versions, or the dataset as it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets import pinned, service
from app.registry.datasets.edits.differences import Piece, differences
from app.registry.datasets.several_captions import pinned_captions
from app.registry.datasets.transfer.versions import get_version
from app.registry.errors import Conflict, NotFound
from app.registry.paging import Page, page_of
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from worker.core.words import CaptionKind

Item = Mapping[str, Any]
CHANGES_A_PAGE = 60


class ChangeKind(StrEnum):
    """The kind of a change to an image."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@api_record
class CaptionChange:
    """A caption before and after."""

    kind: CaptionKind = Field(description="`long`, `short` or `tags`.")
    before: str = Field(description="What it said; empty: there was none.")
    after: str = Field(description="What it says; empty: there is none.")

    @property
    def pieces(self) -> list[Piece]:
        """Both, word by word."""
        return differences(self.before, self.after)


@api_record
class ItemChange:
    """An image that is not the same in both states."""

    kind: ChangeKind = Field(description="`added`, `removed` or `changed`.")
    image_id: int | None = Field(exclude=True)
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    clean_sha256: str = Field(exclude=True)
    thumbnail_sha256: str = Field(exclude=True)
    filename: str = Field(description="Name of the uploaded file.")
    width: int = Field(exclude=True)
    height: int = Field(exclude=True)
    captions: list[CaptionChange] = Field(description="The captions that differ.")
    facts: list[str] = Field(description="What else differs, as sentences.")


@dataclass(frozen=True)
class VersionChanges:
    """The differences of two states; `None` for a version: the dataset as it is now."""

    dataset: Dataset
    before: DatasetVersion | None
    after: DatasetVersion | None
    changes: list[ItemChange]
    same: int
    page: int = 1

    def count(self, kind: ChangeKind) -> int:
        """Number of images of this kind."""
        return sum(change.kind == kind for change in self.changes)

    @property
    def shown(self) -> Page[ItemChange]:
        """The page of changes, the last one if there are fewer."""
        return page_of(self.changes, self.page, CHANGES_A_PAGE)


def compare_versions(
    session: Session, dataset_id: int, before: int | None, after: int | None, *, page: int = 1
) -> VersionChanges:
    """The changes from one version of a dataset to another; None: the dataset as it is now.

    Raises NotFound for a version of another dataset, and Conflict for one whose images are gone.
    """
    dataset = service.get_dataset(session, dataset_id)
    one, two = (_version(session, dataset_id, key) for key in (before, after))
    old, new = (
        version.items if version else pinned.current_items(session, dataset_id)
        for version in (one, two)
    )
    rows = session.exec(select(Image).where(col(Image.dataset_id) == dataset_id)).all()
    images = {image.sha256: image for image in rows}
    changes = list_changes(old, new, images)
    same = len({item["sha256"] for item in new}) - sum(
        change.kind != ChangeKind.REMOVED for change in changes
    )
    return VersionChanges(dataset, one, two, changes, same, page)


def _version(session: Session, dataset_id: int, key: int | None) -> DatasetVersion | None:
    if key is None:
        return None
    version = get_version(session, key)
    if version.dataset_id != dataset_id:
        raise NotFound("This dataset has no such version.")
    if not version.is_kept:
        raise Conflict(
            f"The images of version {key} were deleted for good, with the last run that used them."
        )
    return version


def list_changes(
    before: Sequence[Item], after: Sequence[Item], images: Mapping[str, Image]
) -> list[ItemChange]:
    """The images that were added, then removed, then changed, each in the order of the dataset.

    `images`: those that the dataset still has, by hash; they know thumbnails and older names.
    """
    old = {item["sha256"]: item for item in before}
    new = {item["sha256"]: item for item in after}
    added = [(ChangeKind.ADDED, None, item) for key, item in new.items() if key not in old]
    removed = [(ChangeKind.REMOVED, item, None) for key, item in old.items() if key not in new]
    both = [(ChangeKind.CHANGED, old[key], item) for key, item in new.items() if key in old]
    found = [_change(*one, images) for one in (*added, *removed, *both)]
    return [one for one in found if one.kind != ChangeKind.CHANGED or one.captions or one.facts]


def _change(
    kind: ChangeKind, before: Item | None, after: Item | None, images: Mapping[str, Image]
) -> ItemChange:
    item = after or before or {}
    row = images.get(item["sha256"])
    return ItemChange(
        kind=kind,
        image_id=row.key if row and row.deleted_at is None else None,
        sha256=item["sha256"],
        clean_sha256=item["clean_sha256"],
        thumbnail_sha256=row.thumbnail_sha256 if row else item["clean_sha256"],
        filename=item.get("filename") or (row.filename if row else ""),
        width=item["width"],
        height=item["height"],
        captions=_caption_changes(before or {}, after or {}),
        facts=_facts(before, after) if before and after else [],
    )


def _captions(item: Item) -> dict[CaptionKind, tuple[str, int]]:
    """Text and share of the captions of an item, by kind."""
    return {one.kind: (one.caption, one.share) for one in pinned_captions(item)}


def _caption_changes(before: Item, after: Item) -> list[CaptionChange]:
    old, new = _captions(before), _captions(after)
    found = [
        CaptionChange(kind, old.get(kind, ("", 0))[0], new.get(kind, ("", 0))[0])
        for kind in dict.fromkeys([*old, *new])
    ]
    return [one for one in found if one.before != one.after]


def _facts(before: Item, after: Item) -> list[str]:
    facts = []
    old, new = _captions(before), _captions(after)
    for kind in [kind for kind in new if kind in old and new[kind][1] != old[kind][1]]:
        facts.append(f"{kind}: share {new[kind][1]}, before {old[kind][1]}")
    repeats = before.get("repeats", 1), after.get("repeats", 1)
    if repeats[0] != repeats[1]:
        facts.append(f"{repeats[1]} repeats, before {repeats[0]}")
    if bool(before.get("never_flip")) != bool(after.get("never_flip")):
        facts.append("never flipped" if after.get("never_flip") else "may be flipped again")
    if before.get("focus") != after.get("focus"):
        facts.append("another focus point" if after.get("focus") else "focus in the center again")
    if before["clean_sha256"] != after["clean_sha256"]:
        facts.append("stored again with other bytes")
    return facts
