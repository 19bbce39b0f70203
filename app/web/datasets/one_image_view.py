"""The page of one image, as its templates show it."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.datasets.caption_tokens import CaptionTokens, tokens_of
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_captions.history import WrittenCaption, caption_history
from app.registry.datasets.image_facts import ImageFacts, image_facts
from app.registry.datasets.neighbors import Neighbors, find_neighbors
from app.registry.datasets.several_captions import KINDS, OneCaption, captions_of_image
from app.registry.datasets.training_side import TrainingSide, training_side
from app.registry.db import Session
from app.registry.runs.crops import Crop, crop_of
from app.registry.tables.datasets import Dataset, Image
from app.web.datasets.page_view import CaptionConflict
from worker.core.words import CaptionKind

LABELS = {
    CaptionKind.LONG: "Long",
    CaptionKind.SHORT: "Short",
    CaptionKind.TAGS: "Tags",
}


@dataclass(frozen=True)
class ShownCaption:
    """A caption with its tokens, and what was typed if that is not saved."""

    row: OneCaption
    label: str
    tokens: int
    contested: CaptionConflict | None = None


@dataclass(frozen=True)
class FocusPoint:
    """The point that crops keep, in percent from the left and the top, and in pixels."""

    left: float
    top: float
    x: float
    y: float

    @property
    def text(self) -> str:
        """Such as “40 % from the left, 50 % from the top”."""
        return f"{self.left:.0f} % from the left, {self.top:.0f} % from the top"


@dataclass(frozen=True)
class OneImage:
    """An image with all that its page shows; `query` is the filter that led to it."""

    dataset: Dataset
    image: Image
    query: str
    neighbors: Neighbors
    captions: list[ShownCaption]
    tokens: CaptionTokens
    history: list[WrittenCaption]
    crop: Crop
    side: TrainingSide
    focus: FocusPoint
    facts: ImageFacts

    @property
    def address(self) -> str:
        """The address of its page, without the query."""
        return f"/datasets/{self.dataset.slug}/images/{self.image.id}"

    @property
    def more(self) -> str:
        """The query with its question mark, or nothing."""
        return f"?{self.query}" if self.query else ""

    @property
    def free_kinds(self) -> list[tuple[str, str]]:
        """The kinds of captions that the image does not have, with their labels."""
        taken = {one.row.kind for one in self.captions}
        return [(kind.value, LABELS[kind]) for kind in KINDS if kind not in taken]

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all kinds."""
        return {kind.value: label for kind, label in LABELS.items()}


def one_image(
    session: Session,
    dataset: Dataset,
    image: Image,
    query: str,
    *,
    conflict: tuple[CaptionKind, CaptionConflict] | None = None,
) -> OneImage:
    """Read what the page of an image shows; `conflict`: a caption that could not be saved."""
    wanted = ImageFilter.from_query(query)
    tokens = tokens_of(session, dataset.key)
    side = training_side(session, dataset.key)
    return OneImage(
        dataset=dataset,
        image=image,
        query=wanted.query,
        neighbors=find_neighbors(session, dataset, image.key, wanted),
        captions=[
            ShownCaption(
                row,
                LABELS[row.kind],
                tokens.count(row.caption),
                conflict[1] if conflict and conflict[0] == row.kind else None,
            )
            for row in captions_of_image(session, image)
        ],
        tokens=tokens,
        history=caption_history(session, image),
        crop=crop_of(image, side.pixels, squares=side.squares),
        side=side,
        focus=_focus_point(image),
        facts=image_facts(session, image),
    )


def _focus_point(image: Image) -> FocusPoint:
    x, y = image.focus or (0.5, 0.5)
    return FocusPoint(
        round(x * 100, 1), round(y * 100, 1), round(x * image.width, 1), round(y * image.height, 1)
    )
