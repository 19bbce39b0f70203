"""The subject of a caption: the noun that its first words name."""

from __future__ import annotations

from collections.abc import Sequence

from app.registry.datasets.listing.caption_words import TRIGGER, Part
from worker.core.captioning.style_words import ARTICLES, MEDIA, STOP_WORDS

GROUPED = (
    "bowl box bunch couple crowd cup field flock glass group herd pair piece pile row set slice "
    "stack"
)
GROUPS = frozenset(GROUPED.split())
"""“A group of foxes” is about foxes, as is “a drawing of foxes”."""

Span = tuple[int, int]


def subject_of(parts: Sequence[Part], styles: Sequence[Sequence[Span]]) -> str | None:
    """The noun in singular; None if nothing is left beside style, trigger and joining words.

    `styles`: for each part, the stretches that name a style.
    """
    for part, spans in zip(parts, styles, strict=True):
        words = [
            word
            for place, word in enumerate(part.words)
            if word != TRIGGER and not any(start <= place < end for start, end in spans)
        ]
        if noun := _noun(words):
            return noun
    return None


def _noun(words: Sequence[str]) -> str | None:
    while words and words[0] in STOP_WORDS:
        words = words[1:]
    phrase = list(words)
    for place, word in enumerate(words):
        if word in STOP_WORDS - ARTICLES or (place and word.endswith("ing") and len(word) > 4):
            phrase = list(words[:place])
            if word == "of" and phrase and singular(phrase[-1]) in GROUPS | MEDIA:
                return _noun(words[place + 1 :]) or phrase[-1]
            break
    return singular(phrase[-1]) if phrase else None


def singular(word: str) -> str:
    """The word in singular, as far as its ending tells: foxes, berries and cats."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
