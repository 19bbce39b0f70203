"""The statistics of a dataset as its page shows them: words as filters, lengths and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.listing.statistics import (
    CountedWord,
    DatasetStatistics,
    SizeStep,
    read_statistics,
)
from app.registry.db import Session
from app.registry.tables.datasets import Dataset


@dataclass(frozen=True)
class WordLink:
    """A word with the queries that filter by it; `chosen`: “with” or “without” if one does."""

    word: str
    images: int
    with_query: str
    without_query: str
    chosen: str


@dataclass(frozen=True)
class StatisticsPanel:
    """The statistics of a dataset; without `found`, they are loaded when the panel is opened."""

    dataset: Dataset
    wanted: ImageFilter
    found: DatasetStatistics | None

    @property
    def words(self) -> list[WordLink]:
        """The most frequent words."""
        return self._links(self.found.words if self.found else ())

    @property
    def tags(self) -> list[WordLink]:
        """The most frequent tags."""
        return self._links(self.found.tags if self.found else ())

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """For each range of short sides: its words, and the number of images."""
        steps = self.found.sizes if self.found else ()
        return [(_size_words(step), step.images) for step in steps]

    def _links(self, counted: Sequence[CountedWord]) -> list[WordLink]:
        return [self._link(one) for one in counted]

    def _link(self, one: CountedWord) -> WordLink:
        wanted, word = self.wanted, one.word
        without = wanted.word_removed(word)
        chosen = "with" if word in wanted.with_words else ""
        chosen = "without" if word in wanted.without_words else chosen
        return WordLink(
            word,
            one.images,
            (without if chosen == "with" else wanted.with_word(word)).query,
            (without if chosen == "without" else wanted.without_word(word)).query,
            chosen,
        )


def read_statistics_panel(
    session: Session, dataset: Dataset, wanted: ImageFilter, *, now: bool = False
) -> StatisticsPanel:
    """The panel of a dataset; `now`: with its figures."""
    return StatisticsPanel(dataset, wanted, read_statistics(session, dataset) if now else None)


def _size_words(step: SizeStep) -> str:
    if step.below is None:
        return f"{step.at_least:,} px and more"
    if not step.at_least:
        return f"below {step.below:,} px"
    return f"{step.at_least:,} to {step.below - 1:,} px"
