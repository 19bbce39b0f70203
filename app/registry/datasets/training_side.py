"""The size, the base model and the tokens of captions with which a dataset is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from sqlmodel import Session, col, select

from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.datasets.used_datasets import is_of_datasets
from app.registry.db import cached_by_snapshot
from app.registry.tables.added_models import EMBEDDED, BaseModel
from app.registry.tables.runs import Run
from worker.core.bases.token_counts import TokenCounter, clip_counter, starter_counter

KEPT_COUNTS = 20_000  # captions whose number of tokens is kept


@dataclass(frozen=True)
class TrainingSide:
    """The side in pixels at which a dataset is trained, and the base model that it is of.

    `is_embedded`: the base model is. `squares`: every image is cropped to a square.
    `caption_tokens`: how many it reads at most.
    """

    pixels: int
    base_name: str
    is_embedded: bool = False
    squares: bool = field(default=False, compare=False)  # no finding depends on it
    caption_tokens: int = 75


def side_of(
    base: BaseModel, resolution: int | None = None, *, squares: bool = False
) -> TrainingSide:
    """The side at which a run of this base model trains; without a resolution, the base's own."""
    pixels = resolution or base.resolution or USUAL_SIDE
    tokens = base.options.caption_tokens
    return TrainingSide(pixels, base.name, base.source == EMBEDDED, squares, tokens)


@cached_by_snapshot
def training_side(session: Session, dataset_id: int) -> TrainingSide:
    """The side of the dataset's last run; without a run, that of the embedded base model."""
    last = (
        select(BaseModel, Run.config)
        .join(Run, col(BaseModel.id) == col(Run.base_model_id))
        .where(is_of_datasets([dataset_id]))
        .order_by(col(Run.id).desc())
    )
    if (found := session.exec(last.limit(1)).first()) is not None:
        base, config = found
        squares = config.get("aspect_buckets") is False
        return side_of(base, config.get("resolution"), squares=squares)
    embedded = session.exec(select(BaseModel).where(BaseModel.source == EMBEDDED)).first()
    return side_of(embedded) if embedded else TrainingSide(USUAL_SIDE, "")


@dataclass(frozen=True)
class CaptionTokens:
    """Counts tokens; `base` is the name of the base model, empty if there is none."""

    counter: TokenCounter
    base: str

    @property
    def limit(self) -> int:
        """The number of tokens that the base model reads; it cuts the rest off."""
        return self.counter.limit

    def count(self, caption: str) -> int:
        """The number of tokens of a caption; counts are kept."""
        return _count(self.counter, caption)

    def is_too_long(self, caption: str) -> bool:
        """True if the base model cuts a caption off."""
        if len(caption.encode()) <= self.limit:  # a token has a byte at least
            return False
        return self.count(caption) > self.limit


@lru_cache(KEPT_COUNTS)
def _count(counter: TokenCounter, caption: str) -> int:
    """The tokens of a caption: 0.1 ms, which matters for a page of 48 and for 5,000 captions."""
    return counter.count(caption)


def tokens_for(side: TrainingSide) -> CaptionTokens:
    """The token counter of this base model; CLIP's for one that is not embedded."""
    counter = starter_counter() if side.is_embedded else clip_counter(side.caption_tokens)
    return CaptionTokens(counter, side.base_name)


def tokens_of(session: Session, dataset_id: int) -> CaptionTokens:
    """The token counter of the base model that the dataset is trained with."""
    return tokens_for(training_side(session, dataset_id))
