"""Finds what a text is about among the names that the embedded eyes know.

The eyes have no language model: a text is known when its subject is one of their names, or a word
that Unicode gives one or several of them. The subject of "a red vintage car on the road" is the
last noun before the preposition; a text whose subject is unknown is unknown, however many of its
other words are names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

PREPOSITIONS = frozenset(
    {
        "above", "against", "among", "around", "as", "at", "before", "behind", "below", "beside",
        "between", "by", "during", "for", "from", "in", "inside", "into", "near", "next", "on",
        "onto", "over", "through", "to", "toward", "under", "upon", "wearing", "while", "with",
        "without",
    }
)  # fmt: skip
FRAMES = frozenset(
    {
        "art", "artwork", "background", "clipart", "close-up", "closeup", "depiction", "drawing",
        "emoji", "graphic", "icon", "illustration", "image", "logo", "look", "painting", "photo",
        "photograph", "photography", "picture", "portrait", "print", "render", "rendering",
        "scene", "sketch", "sticker", "style", "symbol", "view",
    }
)  # fmt: skip
"""Words that say how something is shown, not what."""

ARTICLES = frozenset(
    {
        "a", "an", "her", "his", "my", "one", "our", "some", "that", "the", "their", "this",
        "three", "two", "your",
    }
)  # fmt: skip
MAX_WORDS = 8


@dataclass(frozen=True)
class Vocabulary:
    """The names, and the other words that stand for one or several of them."""

    names: tuple[str, ...]
    words: Mapping[str, tuple[int, ...]]
    """Indices of names by word, singular and in lower case."""

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the names that the text is about; empty when it is unknown."""
        return next((found for clause in _clauses(text) if (found := self._subject(clause))), ())

    def _subject(self, clause: Sequence[str]) -> tuple[int, ...]:
        """The names for the longest known phrase at the end of a noun phrase."""
        if whole := self._look_up(clause):
            return whole
        ends = (i for i, word in enumerate(clause) if word in PREPOSITIONS)
        phrase = list(clause[: next(ends, len(clause))])
        if "of" in phrase:  # a drawing of a cat, a slice of pizza
            place = phrase.index("of")
            before, after = phrase[:place], phrase[place + 1 :]
            return self._subject(before) or self._subject(after)
        while phrase:
            if found := self._look_up(phrase):
                return found
            phrase.pop(0)
        return ()

    def _look_up(self, words: Sequence[str]) -> tuple[int, ...]:
        words = [word for word in words if word not in ARTICLES]
        if not 0 < len(words) <= MAX_WORDS or (len(words) == 1 and words[0] in FRAMES):
            return ()
        for ending in _singulars(words[-1]):
            if found := self.words.get(" ".join([*words[:-1], ending])):
                return found
        return ()


def build_vocabulary(
    names: Sequence[str],
    aliases: Sequence[Sequence[str]],
    keywords: Sequence[Sequence[str]],
    plain_names: Mapping[str, str] = MappingProxyType({}),
) -> Vocabulary:
    """Words to names, the surest first: the name itself, an everyday word, another name in use, a
    keyword.

    `plain_names` maps everyday words to the name that is meant; `aliases` and `keywords` are those
    of each name. A word at a surer place is not looked for at the others: "cat" is the cat, and its
    face, but no lion. Words that say how something is shown are left out.
    """
    words: dict[str, tuple[int, ...]] = {}
    for name_index, name in enumerate(names):
        words[name] = (name_index,)
    for name_index, name in enumerate(names):
        plain = name.removesuffix(" face")
        if plain != name and plain in words:
            words[plain] = (*words[plain], name_index)
    for word, name in plain_names.items():
        if word not in words and name in words:
            words[word] = words[name]
    for lists in (aliases, keywords):
        found: dict[str, list[int]] = {}
        for name_index, own in enumerate(lists):
            for word in dict.fromkeys(" ".join(_split(word)) for word in own):
                if word and word not in words and word not in FRAMES:
                    found.setdefault(word, []).append(name_index)
        words |= {word: tuple(indices) for word, indices in found.items()}
    return Vocabulary(tuple(names), words)


def _clauses(text: str) -> list[list[str]]:
    """The parts between commas and the like, as words."""
    return [words for part in re.split(r"[,;:.!?()\n|]+", text) if (words := _split(part))]


def _split(text: str) -> list[str]:
    """Words of letters and digits in lower case: "T-Rex" is two, "fox's" is one."""
    return re.findall(r"[^\W_]+", re.sub(r"['’]s?\b", "", text.lower()))


def _singulars(word: str) -> list[str]:
    """The word, and what it may be the plural of."""
    found = [word]
    if word.endswith("ies") and len(word) > 4:
        found.append(f"{word[:-3]}y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        found.append(word[:-2])
    if word.endswith("ves"):
        found += [f"{word[:-3]}f", f"{word[:-3]}fe"]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        found.append(word[:-1])
    return [*found, f"{word}s"] if not word.endswith("s") else found
