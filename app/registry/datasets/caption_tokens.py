"""The tokens of captions, as the base model counts them that a dataset was last trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sqlmodel import Session, col, select

from app.registry.datasets.used_datasets import is_of_datasets
from app.registry.db import cached_by_snapshot
from app.registry.tables.base_models import EMBEDDED, BaseModel
from app.registry.tables.runs import Run
from worker.core.bases.token_counts import TokenCounter, clip_counter, starter_counter

KEPT_COUNTS = 20_000  # captions whose number of tokens is kept


@dataclass(frozen=True)
class CaptionTokens:
    """Counts tokens; `base` is the name of the base model, None before the first run."""

    counter: TokenCounter
    base: str | None

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


@cached_by_snapshot
def tokens_of(session: Session, dataset_id: int) -> CaptionTokens:
    """The token counter of the base model of the dataset's last run; before a run, CLIP's."""
    last = (
        select(BaseModel)
        .join(Run, col(Run.base_model_id) == col(BaseModel.id))
        .where(is_of_datasets([dataset_id]))
        .order_by(col(Run.id).desc())
    )
    base = session.exec(last.limit(1)).first()
    is_embedded = base is not None and base.source == EMBEDDED
    return CaptionTokens(
        starter_counter() if is_embedded else clip_counter(), base.name if base else None
    )
