"""Filters, words and order of a dataset's listing, as they stand in an address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from urllib.parse import parse_qsl, urlencode

from app.registry.datasets.caption_words import normalize_words
from app.registry.errors import invalid_field
from worker.core.words import Labeled

MAX_SEARCH = 200  # characters
MAX_WORDS = 20  # of `with` and `without` together
MAX_WORD = 100  # characters
MAX_QUERY = 20_000  # characters of a query that is read
PARAMETERS = frozenset({"show", "with", "without", "q", "sort"})


class Show(Labeled):
    """A property of images; with several, only the images that have all of them are shown."""

    UNCAPTIONED = "uncaptioned", "No caption"
    NO_TRIGGER = "no_trigger", "No trigger word"
    LONG = "long", "Too long"
    SAME_CAPTION = "same_caption", "Same caption"
    NEAR_DUPLICATE = "near_duplicate", "Near-duplicates"
    SMALL = "small", "Small"
    BLURRY = "blurry", "Blurry"
    ELONGATED = "elongated", "Long or tall"
    TRANSPARENT = "transparent", "Transparent"
    SET_ASIDE = "set_aside", "Set aside"
    PROVIDER = "provider", "By a model"
    UNMEASURED = "unmeasured", "Not measured yet"


class Sort(Labeled):
    """The order of images."""

    OLDEST = "oldest", "Oldest first"
    NEWEST = "newest", "Newest first"
    NAME = "name", "By name"
    LARGEST = "largest", "Largest first"
    SMALLEST = "smallest", "Smallest first"
    SHARPEST = "sharpest", "Sharpest first"
    BLURRIEST = "blurriest", "Blurriest first"
    SIMILAR = "similar", "Similar ones together"


@dataclass(frozen=True)
class ImageFilter:
    """Which images of a dataset, in which order; combined with AND.

    `with_words` and `without_words` are words or phrases that a caption has to contain or not, as
    whole words; `q` is part of a caption or file name.
    """

    show: frozenset[Show] = frozenset()
    with_words: tuple[str, ...] = ()
    without_words: tuple[str, ...] = ()
    q: str = ""
    sort: Sort = Sort.OLDEST

    @classmethod
    def from_query(cls, query: str) -> Self:
        """The filter in the query of an address; what it cannot use is left out."""
        return cls.parse(parse_qsl(query[:MAX_QUERY], max_num_fields=None))[0]

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The filter that a person or program wrote. Raises InvalidInput for what is none.

        A slip must not make “some images” all of them.
        """
        pairs = parse_qsl(text[:MAX_QUERY], keep_blank_values=True, max_num_fields=None)
        found, problems = cls.parse(pairs)
        unknown = [name for name, _ in pairs if name not in PARAMETERS]
        if len(text) > MAX_QUERY:
            problems = {f"A filter has at most {MAX_QUERY:,} characters.": ""}
        elif unknown or (text.strip() and not pairs):
            shown = (unknown or [text])[0][:40]
            problems = {f"There is no filter “{shown}”. Write it like show=no_trigger&q=fox.": ""}
        for sentence in problems:
            raise invalid_field("filter", sentence)
        return found

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> tuple[Self, dict[str, str]]:
        """The filter in the parameters of an address.

        And for each that is not used, a sentence with the name of the parameter.
        """
        show: set[Show] = set()
        words: dict[str, list[str]] = {"with": [], "without": []}
        q, sort = "", Sort.OLDEST
        problems: dict[str, str] = {}  # each sentence once
        for name, value in pairs:
            problem = None
            if name == "show" and value not in ("", "all"):
                problem = _unknown("filter", value, Show)
                show |= set() if problem else {Show(value)}
            elif name == "sort" and value:
                problem = _unknown("order", value, Sort)
                sort = sort if problem else Sort(value)
            elif name == "q":
                q = value[: MAX_SEARCH * 2].strip()[:MAX_SEARCH]
                if len(value.strip()) > MAX_SEARCH:
                    problem = f"Only the first {MAX_SEARCH} characters were searched for."
            elif name in words:
                problem = _add_word(words, name, value)
            if problem:
                problems.setdefault(problem, name)
        found = cls(frozenset(show), tuple(words["with"]), tuple(words["without"]), q, sort)
        return found, problems

    @property
    def is_all(self) -> bool:
        """True if every image of the dataset matches."""
        return not (self.show or self.with_words or self.without_words or self.q)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of an address with this filter, in a stable order."""
        pairs = [("show", kind.value) for kind in Show if kind in self.show]
        pairs += [("with", word) for word in self.with_words]
        pairs += [("without", word) for word in self.without_words]
        pairs += [("q", self.q)] if self.q else []
        return pairs + ([("sort", self.sort.value)] if self.sort != Sort.OLDEST else [])

    @property
    def query(self) -> str:
        """The filter as the query of an address, without “?”; "" for all images."""
        return urlencode(self.pairs)

    def toggled(self, kind: Show) -> Self:
        """This filter with the property added, or removed if it was there."""
        return replace(self, show=self.show ^ {kind})

    def with_word(self, word: str) -> Self:
        """This filter for captions that contain the word too."""
        others = self.word_removed(word)
        return replace(others, with_words=(*others.with_words, normalize_words(word)))

    def without_word(self, word: str) -> Self:
        """This filter for captions that do not contain the word."""
        others = self.word_removed(word)
        return replace(others, without_words=(*others.without_words, normalize_words(word)))

    def word_removed(self, word: str) -> Self:
        """This filter without the condition on a word."""
        word = normalize_words(word)
        return replace(
            self,
            with_words=tuple(kept for kept in self.with_words if kept != word),
            without_words=tuple(kept for kept in self.without_words if kept != word),
        )


ALL_IMAGES = ImageFilter()


def _add_word(words: dict[str, list[str]], name: str, value: str) -> str | None:
    """Add a word to those of `with` or `without`; return a sentence if it cannot be used."""
    word = normalize_words(value[: MAX_WORD * 2])[:MAX_WORD].strip()
    if not word or word in words[name]:
        return None
    if sum(map(len, words.values())) >= MAX_WORDS:
        return f"At most {MAX_WORDS} words can be combined; the others are ignored."
    words[name].append(word)
    return None


def _unknown(noun: str, value: str, kinds: type[StrEnum]) -> str | None:
    """A sentence if this is not the name of a filter or order."""
    names = [kind.value for kind in kinds]
    if value in names:
        return None
    return f"There is no {noun} “{value[:40]}”. Use {', '.join(names[:-1])} or {names[-1]}."
