"""Finds the words that stand in nearly all captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from app.registry.datasets.listing.caption_words import TRIGGER, Part
from worker.core.captioning.style_words import STOP_WORDS, WEAK

MAX_PHRASE = 8  # words

Phrase = tuple[str, ...]


def repeated_phrases(captions: Sequence[Sequence[Part]], *, at_least: int) -> list[Phrase]:
    """The longest stretches of words that this many captions have, without words that only join.

    Only stretches of words that are frequent by themselves are counted, so this is two passes over
    the captions, however long they are.
    """
    frequent = _in_most({word for part in parts for word in part.words} for parts in captions)
    words = {word for word, count in frequent.items() if count >= at_least} - {TRIGGER}
    if not words - STOP_WORDS - WEAK:
        return []
    counts = _in_most({*_stretches(parts, words)} for parts in captions)
    kept = [phrase for phrase, count in counts.items() if count >= at_least]
    cores = {core_of(phrase) for phrase in kept if not _is_inside(phrase, kept)} - {()}
    cores = {core for core in cores if not WEAK.issuperset(core)}
    longest = [core for core in cores if not _is_inside(core, cores)]
    return sorted(longest, key=lambda core: (-counts[core], core))


def core_of(phrase: Phrase) -> Phrase:
    """The phrase without joining words at both ends: “white background” of “on a white …”."""
    start, end = core_span(phrase)
    return phrase[start:end]


def core_span(phrase: Phrase) -> tuple[int, int]:
    """Where the phrase begins and ends without joining words."""
    start, end = 0, len(phrase)
    while start < end and phrase[start] in STOP_WORDS:
        start += 1
    while end > start and phrase[end - 1] in STOP_WORDS:
        end -= 1
    return start, end


def places_of(core: Phrase, part: Part) -> Iterator[int]:
    """Where the phrase begins in a part, without overlaps."""
    start = 0
    while start <= len(part.words) - len(core):
        if part.words[start : start + len(core)] == core:
            yield start
            start += len(core)
        else:
            start += 1


def _in_most(sets: Iterator[set[Phrase]] | Iterator[set[str]]) -> Counter:  # type: ignore[type-arg]
    counter: Counter = Counter()  # type: ignore[type-arg]
    for one in sets:
        counter.update(one)
    return counter


def _stretches(parts: Sequence[Part], words: set[str]) -> Iterator[Phrase]:
    """Every run of these words in the parts, up to `MAX_PHRASE` of them."""
    for part in parts:
        for start, word in enumerate(part.words):
            if word not in words:
                continue
            for end in range(start + 1, min(start + MAX_PHRASE, len(part.words)) + 1):
                if part.words[end - 1] not in words:
                    break
                yield part.words[start:end]


def _is_inside(phrase: Phrase, others: set[Phrase] | Sequence[Phrase]) -> bool:
    """True if a longer one of the others contains the phrase."""
    size = len(phrase)
    return any(
        len(other) > size
        and any(other[at : at + size] == phrase for at in range(len(other) - size + 1))
        for other in others
    )
