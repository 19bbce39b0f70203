"""Captions as words: parts between commas, and where in the text each word stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"\w+(?:['’]\w+)*")
PART = re.compile(r"[^,;.!?:()\[\]{}|\n]+")
BEFORE_TRIGGER = (("in", "the", "style", "of"), ("in", "a"), ("in", "the"), ("in",), ("by",))
AFTER_TRIGGER = frozenset({"style", "styled"})


TRIGGER = ""  # stands in the words of a part where the trigger word was


@dataclass(frozen=True, slots=True)
class Part:
    """The words of a caption between two commas, in lower case, and the place of each in the text.

    The trigger word, with what belongs to it, is one word: `TRIGGER`.
    """

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def parts_of(caption: str, trigger: Sequence[str] = ()) -> list[Part]:
    """The parts of a caption that have words.

    “in chalk style”, “chalk style” and “in the style of chalk” belong to the trigger word “chalk”.
    """
    text = _plain(caption)
    parts = []
    for found in PART.finditer(text):
        matches = list(WORD.finditer(text, found.start(), found.end()))
        part = Part(tuple(one[0] for one in matches), tuple(one.span() for one in matches))
        parts.append(_with_trigger(part, tuple(trigger)) if trigger else part)
    return [part for part in parts if part.words]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, as `parts_of` reads them."""
    return tuple(WORD.findall(_plain(text)))


def words_without_trigger(parts: Sequence[Part]) -> tuple[str, ...]:
    """The words of a caption without the trigger word; captions that share them are the same."""
    return tuple(word for part in parts for word in part.words if word != TRIGGER)


def _plain(text: str) -> str:
    """The text in lower case with spaces for hyphens, each letter in its old place."""
    lower = text.lower()
    kept = lower if len(lower) == len(text) else text  # “İ” has two letters in lower case
    return kept.replace("_", " ").replace("-", " ")


def _with_trigger(part: Part, trigger: tuple[str, ...]) -> Part:
    """The part with the trigger word and the words around it that belong to it as one."""
    if trigger[0] not in part.words:
        return part
    words, spans = list(part.words), list(part.spans)
    for start in range(len(words) - len(trigger), -1, -1):
        if tuple(words[start : start + len(trigger)]) != trigger:
            continue
        first, end = start, start + len(trigger)
        if end < len(words) and words[end] in AFTER_TRIGGER:
            end += 1
        before = (lead for lead in BEFORE_TRIGGER if tuple(words[:start][-len(lead) :]) == lead)
        first -= len(next(before, ()))
        spans[first:end] = [(spans[first][0], spans[end - 1][1])]
        words[first:end] = [TRIGGER]
    return Part(tuple(words), tuple(spans))
