"""Figures about the captions and images of a dataset: words, tags, lengths, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from pydantic import Field
from sqlmodel import Session, select

from app.registry.api_records import api_record
from app.registry.datasets.caption_words import normalize_parts, search_key, spread_words
from app.registry.datasets.listing.image_search import read_state
from app.registry.datasets.listing.kept import KeptResults
from app.registry.datasets.several_captions import read_texts
from app.registry.tables.datasets import Dataset, Image, is_live

LISTED = 50  # words, and tags
# upper ends of the sizes (short side, pixels) that are counted together
SIZE_STEPS = (256, 512, 768, 1024, 1536, 2048)
# they say nothing about what an image shows; the words of captions are English
FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in"),
        *("into", "is", "it", "its", "near", "of", "on", "or", "over", "that", "the", "their"),
        *("this", "to", "under", "up", "was", "were", "while", "with"),
    )
)


@api_record
class CountedWord:
    """A word or tag of captions."""

    word: str = Field(description="In lower case, for the parameters `with` and `without`.")
    images: int = Field(
        description="Number of images with a caption that contains it as whole words."
    )


@api_record
class SizeStep:
    """Images of about the same size."""

    at_least: int = Field(description="The short side in pixels, at least.")
    below: int | None = Field(description="And below this; null: no limit.")
    images: int = Field(description="Number of images.")


@dataclass(frozen=True)
class DatasetStatistics:
    """Figures about the live images of a dataset and all captions; lengths in words."""

    images: int
    captioned: int
    words: tuple[CountedWord, ...]
    tags: tuple[CountedWord, ...]
    different_words: int
    shortest: int
    median_length: int
    longest: int
    sizes: tuple[SizeStep, ...]


def read_statistics(session: Session, dataset: Dataset) -> DatasetStatistics:
    """The statistics of a dataset, kept until it changes."""
    state = read_state(session, dataset)
    return _kept.find(session, dataset.key, (state.images, state.captions))


def _compute(session: Session, dataset_id: int) -> DatasetStatistics:
    query = select(Image.width, Image.height).where(is_live(dataset_id))
    rows = session.exec(query).all()
    captions: dict[int, list[str]] = {}
    for image_id, caption in read_texts(session, dataset_id):
        captions.setdefault(image_id, []).append(caption)
    parts = [[(one, normalize_parts(one)) for one in several] for several in captions.values()]
    texts = [[" ".join(one) for _, one in image] for image in parts]
    words = Counter(chain.from_iterable({*" ".join(image).split()} for image in texts))
    tags = Counter(
        chain.from_iterable(
            {part for caption, one in image if "," in caption for part in one} for image in parts
        )
    )
    lengths = [len(text.split()) for image in texts for text in image]
    return DatasetStatistics(
        images=len(rows),
        captioned=len(captions),
        words=_as_found(_most(words, _is_telling), words, texts),
        tags=_as_found(_most(tags, lambda _: True), words, texts),
        different_words=len(words),
        shortest=min(lengths, default=0),
        median_length=round(median(lengths)) if lengths else 0,
        longest=max(lengths, default=0),
        sizes=_size_steps([min(width, height) for width, height in rows]),
    )


def _most(counter: Counter[str], is_listed: Callable[[str], bool]) -> list[str]:
    """The most frequent ones, those of equal number by name."""
    ordered = sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))
    return [word for word, _ in ordered if is_listed(word)][:LISTED]


def _is_telling(word: str) -> bool:
    return word not in FUNCTION_WORDS and len(word) > 1


def _as_found(
    listed: Sequence[str], words: Counter[str], texts: Sequence[Sequence[str]]
) -> tuple[CountedWord, ...]:
    """Words or tags with the number of images that a filter for them finds.

    It also finds them inside longer ones: “boat” in the tag “red boat”, “ink” in “ink-style”.
    `words` counts those of the normalized `texts`, which is enough where no word is inside another.
    """
    is_plain = all(text.isascii() and "-" not in text for image in texts for text in image)
    pad = " {} ".format if is_plain else spread_words
    spread = ["\n".join(map(pad, image)) for image in texts]  # which no phrase goes over
    counted = []
    for word in listed:
        key = search_key(word)
        is_counted = is_plain and " " not in word
        found = words[word] if is_counted else len([1 for text in spread if key in text])
        counted.append(CountedWord(word, found))
    return tuple(sorted(counted, key=lambda one: (-one.images, one.word)))


def _size_steps(short_sides: Sequence[int]) -> tuple[SizeStep, ...]:
    """The images by their short side; steps without an image are left out."""
    edges: list[int | None] = [*SIZE_STEPS, None]
    steps = []
    at_least = 0
    for below in edges:
        inside = sum(at_least <= side and (below is None or side < below) for side in short_sides)
        if inside:
            steps.append(SizeStep(at_least, below, inside))
        at_least = below or at_least
    return tuple(steps)


_kept = KeptResults(_compute)
