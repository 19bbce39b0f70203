"""Finds the words of a caption that name a style or a medium, “a drawing of”, and its subject.

The rules prefer silence: a word that may as well be a thing or a verb (“a girl drawing a map”, “a
painting on the wall”) is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.registry.datasets.listing.caption_words import TRIGGER, Part
from worker.core.captioning.style_words import (
    ACTORS,
    ALSO_THINGS,
    ARTICLES,
    MATERIALS,
    MEDIA,
    NOT_A_STYLE,
    PRAISE,
    STOP_WORDS,
    STYLE_ENDINGS,
    STYLES,
    STYLES_ALONE,
)

STYLED = STYLES | PRAISE
PHRASES = [tuple(phrase.split()) for phrase in sorted(STYLED, key=len, reverse=True)]
BY_FIRST_WORD = {phrase[0]: [p for p in PHRASES if p[0] == phrase[0]] for phrase in PHRASES}
STYLE_CUES = (
    frozenset(BY_FIRST_WORD)
    | MEDIA
    | STYLE_ENDINGS
    | {phrase.split()[0] for phrase in STYLES_ALONE}
    | {"art", "artwork", "drawn"}
)
"""Without one of these words, a part names no style."""

MAX_MODIFIERS = 4  # “a simple flat colored pencil drawing of”
TAG_WORDS = 3  # a part of so few words that ends in a medium names nothing else: “chalk drawing”
TO_THE_END = (
    ("in", "the", "style", "of"),
    ("art", "by"),
    ("artwork", "by"),
    ("drawn", "by"),
    ("drawn", "in"),
)
INTRODUCTIONS = (("there", "is"), ("this", "is"), ("it", "is"))  # before “a drawing of”

GROUPED = (
    "bowl box bunch couple crowd cup field flock glass group herd pair piece pile row set slice "
    "stack"
)
GROUPS = frozenset(GROUPED.split())
"""“A group of foxes” is about foxes, as is “a drawing of foxes”."""

Span = tuple[int, int]
"""Words of a part, from the first one to before the second."""


def style_phrases(part: Part, *, is_first: bool = False) -> list[Span]:
    """The stretches of a part that name a style, none with the trigger word, none in another one.

    `is_first`: the part begins the caption, so that it names the subject.
    """
    words = part.words
    if STYLE_CUES.isdisjoint(words):
        return []
    if " ".join(words) in STYLES_ALONE:
        return [(0, len(words))]
    found: list[Span] = []
    for span in _candidates(words, is_first=is_first):
        if TRIGGER in words[span[0] : span[1]]:
            continue  # “ink drawing of” with the trigger word “ink”: to strip it would strip both
        if all(span[0] >= end or span[1] <= start for start, end in found):
            found.append(span)
    return sorted(found)


def _candidates(words: tuple[str, ...], *, is_first: bool) -> Iterator[Span]:
    """Longer stretches before the shorter ones that they contain."""
    yield from _by_somebody(words)
    yield from _style_at_end(words)
    for place, word in enumerate(words):
        if word in MEDIA:
            yield from _medium(words, place, is_first=is_first)
    for start, word in enumerate(words):
        for styled in BY_FIRST_WORD.get(word, ()):
            if words[start : start + len(styled)] == styled:
                yield _with_lead(words, (start, start + len(styled)))


def _by_somebody(words: tuple[str, ...]) -> Iterator[Span]:
    """“in the style of a picture book”, “art by …”, “drawn in …”: to the end of the part."""
    for start in range(len(words)):
        for lead in TO_THE_END:
            end = start + len(lead)
            if words[start:end] == lead and end < len(words):
                yield start, len(words)
                return


def _style_at_end(words: tuple[str, ...]) -> Iterator[Span]:
    """“disney style”, “in a flat vector style”: the end of a part, at most three words long."""
    if len(words) < 2 or words[-1] not in STYLE_ENDINGS or TRIGGER in words[-2:]:
        return
    if words[-2] in NOT_A_STYLE | STOP_WORDS:
        return
    leads = [place for place, word in enumerate(words) if word == "in"]
    if leads and len(words) - leads[-1] <= TAG_WORDS + 3:
        yield leads[-1], len(words)
    elif len(words) <= TAG_WORDS:
        yield 0, len(words)


def _medium(words: tuple[str, ...], place: int, *, is_first: bool) -> Iterator[Span]:
    """The stretch around the medium word at this place, unless it is a thing or a verb here."""
    before, after = words[:place], words[place + 1 :]
    if before[:2] in INTRODUCTIONS:
        before = before[2:]
    if (before and before[-1] in ACTORS) or (after and after[0] in ARTICLES - {"the"}):
        return
    if after[:1] == ("of",) and len(before) <= MAX_MODIFIERS and not _has_joint(before):
        yield 0, place + 2  # “a chalk drawing of” a fox
        return
    if after or TRIGGER in before:
        return
    is_thing = words[place] in ALSO_THINGS
    leads = [
        at for at, word in enumerate(before) if word == "as" or (word == "in" and not is_thing)
    ]
    if leads and place - leads[-1] <= TAG_WORDS + 1:
        yield leads[-1], place + 1  # a fox “as a pencil sketch”
    elif len(words) <= TAG_WORDS and not _has_joint(before) and (not is_first or len(words) == 1):
        yield 0, place + 1  # fox, “chalk drawing”
    elif is_first and 1 < len(words) <= TAG_WORDS and not is_thing and not _has_joint(before):
        yield place, place + 1  # fox “drawing”


def _has_joint(words: tuple[str, ...]) -> bool:
    """True if a preposition or a verb stands there: “a man with a”, “a cat watching a”."""
    return any(word in STOP_WORDS - ARTICLES - {"and"} or word.endswith("ing") for word in words)


def _with_lead(words: tuple[str, ...], span: Span) -> Span:
    """The stretch with “in” or “as a” before it, and “style” or “and ink” after it."""
    start, end = span
    if words[end : end + 1] and words[end] in STYLE_ENDINGS:
        end += 1
    if words[end : end + 1] == ("and",) and MATERIALS.issuperset(words[end + 1 :]):
        end = len(words)
    for lead in (("in", "a"), ("in",), ("as", "a")):
        if words[max(0, start - len(lead)) : start] == lead:
            start -= len(lead)
            break
    return start, end


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
