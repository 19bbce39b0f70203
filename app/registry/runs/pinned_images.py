"""The images and captions that a run was trained on, as they were when it was queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.datasets.used_datasets import used_datasets
from app.registry.db import MAX_ID
from app.registry.errors import NotFound
from app.registry.paging import Page, page_of
from app.registry.runs.rerun import ImageChanges, changes_since
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.owned import PRIVATE_NAME, source_of
from app.registry.tables.runs import Run
from worker.core.words import CaptionKind

IMAGES_A_PAGE = 60


class PinnedSet(StrEnum):
    """Which images of a run."""

    TRAINING = "training"
    REGULARIZATION = "regularization"


@dataclass(frozen=True)
class PinnedCaption:
    """One of several captions of an image."""

    kind: Annotated[CaptionKind, Field(description="Its kind.")]
    caption: Annotated[str, Field(description="What it says.")]
    share: Annotated[int, Field(description="How often it was used, relative to the others.")]


@dataclass(frozen=True)
class PinnedImage:
    """An image with the caption that it was trained with."""

    sha256: Annotated[str, Field(description="Hash of the image: `/media/{sha256}`.")]
    thumbnail_sha256: Annotated[str, Field(description="Hash of a smaller image of it.")]
    filename: Annotated[
        str | None, Field(description="Its file; null if that is not known any more.")
    ]
    caption: Annotated[str, Field(description="The caption it was trained with.")]
    width: Annotated[int, Field(description="Width in pixels.")]
    height: Annotated[int, Field(description="Height in pixels.")]
    repeats: Annotated[int, Field(description="Times used per epoch.")]
    never_flip: Annotated[bool, Field(description="True if it is never flipped.")]
    captions: Annotated[
        list[PinnedCaption],
        Field(description="All its captions, if it had several or no long one; else empty."),
    ]
    focus: Annotated[
        tuple[float, float] | None,
        Field(description="The point (x, y) that crops kept, 0 to 1; null: the center."),
    ]


@dataclass(frozen=True)
class PinnedImages(Page[PinnedImage]):
    """A page of the pinned images of one dataset.

    `changes`: of the dataset since, None if it was deleted; `place`: among those that the run is
    trained on, 0 for regularization images.
    """

    dataset: Dataset
    version_id: int
    place: int
    repeats: int
    changes: ImageChanges | None

    @property
    def note(self) -> str:
        """A sentence about later changes of the dataset; empty if there are none."""
        if (self.dataset.name, self.dataset.slug) == (PRIVATE_NAME, ""):
            return "The dataset is private now, so its images and captions are not shown."
        if self.changes is None:
            return "The dataset was deleted since; its images and captions stay with this run."
        return f"The dataset changed since: {self.changes}." if self.changes else ""


def pinned_images(
    session: Session,
    run: Run,
    *,
    of: PinnedSet = PinnedSet.TRAINING,
    place: int = 1,
    page: int | None = 1,
    most: int | None = None,
) -> PinnedImages:
    """A page of the images of a run, or all, in the order of the dataset; the last page at the end.

    `place`: that of the dataset among those it is trained on. Raises NotFound if the run has no
    such dataset or no regularization images.
    """
    key, repeats = _version_at(session, run, place if of is PinnedSet.TRAINING else 0)
    version = source_of(session, DatasetVersion, key)
    dataset = source_of(session, Dataset, version.dataset_id)
    size = IMAGES_A_PAGE if page else MAX_ID
    found = page_of(version.items, page or 1, size)
    return PinnedImages(
        items=_images_of(session, version, found.items[:most], repeats),
        total=found.total,
        number=found.number,
        size=found.size,
        dataset=dataset,
        version_id=key,
        place=place if of is PinnedSet.TRAINING else 0,
        repeats=repeats,
        changes=None if dataset.deleted_at else changes_since(session, version),
    )


def _version_at(session: Session, run: Run, place: int) -> tuple[int, int]:
    """The version of the dataset at this place, 0 for the regularization, and its repeats."""
    if place:
        for one in used_datasets(session, run):
            if one.place == place:
                return one.version_id, one.repeats
        raise NotFound(f"This run has no dataset {place}.")
    if run.regularization_version_id is None:
        raise NotFound("This run has no regularization images.")
    return run.regularization_version_id, 1


def _images_of(
    session: Session, version: DatasetVersion, items: Sequence[Mapping[str, Any]], repeats: int
) -> list[PinnedImage]:
    hashes = [item["sha256"] for item in items]
    stored = select(Image).where(
        Image.dataset_id == version.dataset_id, col(Image.sha256).in_(hashes)
    )
    rows = {image.sha256: image for image in session.exec(stored)}
    found = []
    for item in items:
        row = rows.get(item["sha256"])
        found.append(
            PinnedImage(
                sha256=item["clean_sha256"],
                thumbnail_sha256=row.thumbnail_sha256 if row else item["clean_sha256"],
                filename=item.get("filename") or (row.filename if row else None),
                caption=item["caption"],
                width=item["width"],
                height=item["height"],
                repeats=item.get("repeats", 1) * repeats,
                never_flip=item.get("never_flip", False),
                captions=[
                    PinnedCaption(**one | {"kind": CaptionKind(one["kind"])})
                    for one in item.get("captions", ())
                ],
                focus=tuple(item["focus"]) if "focus" in item else None,
            )
        )
    return found
