"""The images that a bulk edit is for: chosen one by one, or all that match a filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from app.registry.datasets.filters import ALL_IMAGES, ImageFilter
from app.registry.datasets.listing.image_search import matching_ids
from app.registry.db import MAX_ID, in_chunks
from app.registry.errors import InvalidInput, invalid_field
from app.registry.tables.datasets import Dataset, Image, is_live, point

MAX_SELECTED = 20_000


@dataclass(frozen=True)
class Selection:
    """The images of these ids, or all that match a filter but these."""

    image_ids: frozenset[int] = frozenset()
    all_matching: bool = False
    wanted: ImageFilter = ALL_IMAGES


@dataclass(frozen=True)
class SelectedImage:
    """The facts of an image that edits and their previews need."""

    id: int
    filename: str
    sha256: str
    thumbnail_sha256: str
    width: int
    height: int
    caption: str
    caption_kind: str
    caption_version: int
    repeats: int
    never_flip: bool
    set_aside: bool
    focus_x: float | None
    focus_y: float | None

    @property
    def focus(self) -> tuple[float, float] | None:
        """The point (x, y) that crops keep, each 0 to 1; None: the center."""
        return point(self.focus_x, self.focus_y)


COLUMNS: list[Any] = [getattr(Image, name) for name in SelectedImage.__dataclass_fields__]


def selected_images(
    session: Session, dataset: Dataset, selection: Selection
) -> list[SelectedImage]:
    """The selected images of this dataset that are not deleted, in the order of their ids.

    Ids of other datasets are left out. Raises InvalidInput if no image is left.
    """
    image_ids = selection.image_ids
    if selection.all_matching:
        image_ids = frozenset(matching_ids(session, dataset, selection.wanted)) - image_ids
    if len(image_ids) > MAX_SELECTED:
        sentence = f"Select at most {MAX_SELECTED:,} images at once; these are {len(image_ids):,}."
        raise InvalidInput(sentence, fields={"image_ids": sentence})
    found = images_by_id(session, dataset.key, image_ids)
    if not found:
        raise InvalidInput(_why_empty(selection), fields={"image_ids": _why_empty(selection)})
    return found


def _why_empty(selection: Selection) -> str:
    if selection.all_matching:
        return "No image matches the filter. Change it, or select images."
    if not selection.image_ids:
        return "Select at least one image."
    return "None of the selected images is in this dataset; they may have been deleted."


def images_by_id(
    session: Session, dataset_id: int, image_ids: frozenset[int]
) -> list[SelectedImage]:
    """The images of this dataset with these ids that are not deleted, in the order of ids."""
    found: list[SelectedImage] = []
    for chunk in in_chunks(image_id for image_id in image_ids if 0 < image_id <= MAX_ID):
        query = select(*COLUMNS).where(is_live(dataset_id), col(Image.id).in_(chunk))
        rows = session.exec(query.order_by(col(Image.id)))
        found += [SelectedImage(*row) for row in rows]
    return found


def live_images(session: Session, dataset_id: int, image_ids: Iterable[int]) -> list[Image]:
    """The rows of these images of this dataset that are not deleted, in the order of ids."""
    found: list[Image] = []
    for chunk in in_chunks(image_ids):
        query = select(Image).where(is_live(dataset_id), col(Image.id).in_(chunk))
        found += session.exec(query.order_by(col(Image.id)))
    return found


@dataclass(frozen=True)
class Seen:
    """The captions that a preview showed: image id and kind ("": the first) with their version.

    An edit that is given them changes these images and no others, and leaves out what was
    changed since.
    """

    versions: dict[tuple[int, str], int] = field(default_factory=dict)

    @property
    def image_ids(self) -> frozenset[int]:
        """The images that were shown."""
        return frozenset(image_id for image_id, _ in self.versions)

    def token(self) -> str:
        """The same as a short text: each as the step to the next id, the version, and the kind."""
        words, last = [], 0
        for (image_id, kind), version in sorted(self.versions.items()):
            words.append(f"{image_id - last}.{version}" + (f".{kind}" if kind else ""))
            last = image_id
        return " ".join(words)


def read_seen(token: str) -> Seen:
    """The content of a text of `Seen.token`. Raises InvalidInput for another text."""
    versions, last = {}, 0
    try:
        for word in token.split():
            step, version, *kind = word.split(".", 2)
            last += int(step)
            if not 0 < last <= MAX_ID:
                raise ValueError(word)
            versions[last, kind[0] if kind else ""] = int(version)
    except ValueError:
        raise InvalidInput(
            "`seen` is not from a preview. Make the preview again.",
            fields={"seen": "This is not from a preview."},
        ) from None
    return Seen(versions)


def read_ids(text: str) -> frozenset[int]:
    """The ids in a text such as "3 5 8-12". Raises InvalidInput for another text."""
    found: set[int] = set()
    try:
        for word in text.replace(",", " ").split():
            first, _, last = word.partition("-")
            start, end = int(first), int(last or first)
            if not 0 < start <= end or end - start > MAX_SELECTED:
                raise ValueError(word)
            found.update(range(start, end + 1))
            if len(found) > MAX_SELECTED:
                break
    except ValueError:
        raise invalid_field("image_ids", "Select images by their ids, such as 3 5 8-12.") from None
    return frozenset(found)
