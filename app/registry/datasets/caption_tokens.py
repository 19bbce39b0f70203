"""The tokens of captions, as the base model counts them that a dataset is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlmodel import Session

from app.registry.datasets.training_side import TrainingSide, training_side
from worker.core.bases.token_counts import TokenCounter, clip_counter, starter_counter

KEPT_COUNTS = 20_000  # captions whose number of tokens is kept


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
