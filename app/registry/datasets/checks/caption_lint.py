"""Checks captions for what keeps a style from binding to its trigger word.

What every caption leaves out binds to the trigger word; what a caption names binds to that name. So
words that stand in nearly all captions, and words for the style itself, belong out of them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from app.registry.datasets.caption_words import contains_words
from app.registry.datasets.checks.findings import Check, Finding, Severity
from app.registry.datasets.checks.style_phrases import Span, style_phrases, subject_of
from app.registry.datasets.listing.caption_words import (
    TRIGGER,
    Part,
    parts_of,
    words_of,
    words_without_trigger,
)
from app.registry.wording import plural
from worker.core.captioning.style_words import ARTICLES, MEDIA, STOP_WORDS, WEAK

KEPT_TEXTS = 10_000  # captions whose words are kept, 3 KB each
MIN_CAPTIONS = 5  # below that, a word in 80 % of the captions is chance
REPEATED_SHARE = 0.8
ONE_SUBJECT_SHARE = 0.8
MAX_PHRASE = 8  # words
MAX_PHRASES = 6  # of each kind; most captions have one or two
LEADS = frozenset({"against", "as", "by", "in", "on", "over", "with"})  # removed with the phrase
NAMES_STYLE = "It names the style, so the style binds to these words instead of the trigger word."

Phrase = tuple[str, ...]


@dataclass(frozen=True)
class ReadCaption:
    """A caption with its parts, and for each part the stretches that name a style."""

    image_id: int
    text: str
    parts: list[Part]
    styles: list[list[Span]]
    subject: str | None


@dataclass
class _Phrase:
    """A phrase with the images whose captions have it, and its spellings with what leads to it.

    `texts`: how captions write the phrase itself.
    """

    core: Phrase
    image_ids: dict[int, None] = field(default_factory=dict)
    spellings: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)

    @property
    def text(self) -> str:
        """The phrase as findings show it."""
        words = " ".join(self.core)
        return f"in the {words}" if self.core[:2] == ("style", "of") else words


def read_captions(
    captions: Iterable[tuple[int, str]], trigger_word: str | None
) -> list[ReadCaption]:
    """The captions, each with the id of its image, with what the rules look at."""
    trigger = words_of(trigger_word or "")
    return [ReadCaption(image_id, text, *_read(text, trigger)) for image_id, text in captions]


@lru_cache(KEPT_TEXTS)
def _read(text: str, trigger: tuple[str, ...]) -> tuple[list[Part], list[list[Span]], str | None]:
    """Parts, styles and subject of a caption: of 5,000, a person changes one at a time."""
    parts = parts_of(text, trigger)
    styles = [style_phrases(part, is_first=not place) for place, part in enumerate(parts)]
    return parts, styles, subject_of(parts, styles)


def lint_captions(captions: Sequence[ReadCaption], *, trigger_word: str | None) -> list[Finding]:
    """The findings about these captions; empty ones are left out by the caller."""
    one_subject = find_one_subject(captions)
    repeated = _repeated(captions)
    cores = [phrase.core for phrase in repeated]
    styles = [one for one in _styles(captions) if not any(_has(core, one.core) for core in cores)]
    found = [
        _missing_trigger(captions, trigger_word),
        *(
            _phrase_finding(Check.REPEATED_WORDS, phrase, captions, _repeated_reason(trigger_word))
            for phrase in repeated[:MAX_PHRASES]
        ),
        *(
            _phrase_finding(Check.STYLE_WORDS, phrase, captions, NAMES_STYLE)
            for phrase in styles[:MAX_PHRASES]
        ),
        _same_caption(captions),
        _no_subject(captions, cores),
        one_subject,
    ]
    return [one for one in found if one is not None]


def _missing_trigger(captions: Sequence[ReadCaption], trigger_word: str | None) -> Finding | None:
    if not trigger_word:
        return None
    lacking = [one.image_id for one in captions if not contains_words(one.text, trigger_word)]
    if not lacking:
        return None
    verb = "lacks" if len(lacking) == 1 else "lack"
    return Finding(
        Check.TRIGGER_WORD,
        Severity.WARNING,
        f"{plural(len(lacking), 'caption')} {verb} the trigger word",
        f"The style binds to “{trigger_word}” only in captions that have it.",
        image_ids=_once(lacking),
    )


def _repeated(captions: Sequence[ReadCaption]) -> list[_Phrase]:
    """The phrases in most captions, without subjects and without parts of what names a style."""
    if len(captions) < MIN_CAPTIONS:
        return []
    at_least = math.ceil(REPEATED_SHARE * len(captions))
    found = []
    for core in _repeated_phrases([one.parts for one in captions], at_least=at_least):
        phrase, within_style, places = _Phrase(core), 0, 0
        as_subject = 0
        for caption in captions:
            for part, styles in zip(caption.parts, caption.styles, strict=True):
                for start in _places_of(core, part):
                    places += 1
                    end = start + len(core)
                    inside = [s for s in styles if s[0] <= start and end <= s[1]]
                    within_style += any(_core_of(part.words[slice(*s)]) != core for s in inside)
                    _note(phrase, caption, part, inside[0] if inside else _widen(part, start, end))
            as_subject += caption.subject is not None and core[-1].startswith(caption.subject)
        if within_style < 0.5 * places and as_subject < 0.5 * len(captions):
            found.append(phrase)
    return found


def _styles(captions: Sequence[ReadCaption]) -> list[_Phrase]:
    """The phrases that name a style, those in most captions first."""
    found: dict[Phrase, _Phrase] = {}
    for caption in captions:
        for part, styles in zip(caption.parts, caption.styles, strict=True):
            for span in styles:
                core = _core_of(part.words[slice(*span)])
                phrase = found.setdefault(core, _Phrase(core))
                _note(phrase, caption, part, span)
    return sorted(found.values(), key=lambda one: (-len(one.image_ids), one.core))


def _note(phrase: _Phrase, caption: ReadCaption, part: Part, span: Span) -> None:
    """Count this place of a phrase, as the caption spells it."""
    phrase.image_ids[caption.image_id] = None
    first, last = part.spans[span[0]], part.spans[span[1] - 1]
    phrase.spellings[caption.text[first[0] : last[1]]] += 1
    start, end = _core_span(part.words[slice(*span)])
    inner = part.spans[span[0] + start : span[0] + end]
    phrase.texts[caption.text[inner[0][0] : inner[-1][1]]] += 1


def _widen(part: Part, start: int, end: int) -> Span:
    """The stretch with what would be left without sense: “on a”, and “of” after a medium."""
    if part.words[end - 1] in MEDIA and part.words[end : end + 1] == ("of",):
        end += 1
    place = start
    while place and part.words[place - 1] in ARTICLES:
        place -= 1
    if place and part.words[place - 1] in LEADS:
        return place - 1, end
    return (place if place == 0 else start), end


def _has(longer: Phrase, core: Phrase) -> bool:
    size = len(core)
    return any(longer[at : at + size] == core for at in range(len(longer) - size + 1))


def _repeated_reason(trigger_word: str | None) -> str:
    if trigger_word:
        return (
            "What a caption names binds to its own words, not to the trigger word. "
            "Remove it if it belongs to the style."
        )
    return (
        "The dataset has no trigger word. If these words should call the style, make them the "
        "trigger word; if they describe it, remove them."
    )


def _phrase_finding(
    check: Check, phrase: _Phrase, captions: Sequence[ReadCaption], reason: str
) -> Finding:
    return Finding(
        check,
        Severity.WARNING,
        f"“{phrase.text}” is in {len(phrase.image_ids):,} of {plural(len(captions), 'caption')}",
        reason,
        image_ids=tuple(phrase.image_ids),
        phrase=phrase.texts.most_common(1)[0][0],
        fragments=_spellings(phrase),
    )


def _spellings(phrase: _Phrase) -> tuple[str, ...]:
    """The spellings, most common first; those that differ in case only are one."""
    merged: dict[str, str] = {}
    for text, _ in phrase.spellings.most_common():
        merged.setdefault(text.lower(), text)
    return tuple(merged.values())


def _same_caption(captions: Sequence[ReadCaption]) -> Finding | None:
    groups: dict[tuple[str, ...], dict[int, None]] = defaultdict(dict)
    for one in captions:
        if words := words_without_trigger(one.parts):
            groups[words][one.image_id] = None
    piles = tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)
    if not piles:
        return None
    ids = _once(image_id for pile in piles for image_id in pile)
    same = "the same caption" if len(piles) == 1 else f"{len(piles):,} captions"
    return Finding(
        Check.SAME_CAPTION,
        Severity.WARNING,
        f"{plural(len(ids), 'image')} share {same}",
        "What differs between images with one caption has no words, so it binds to the trigger "
        "word as well.",
        image_ids=ids,
        piles=piles,
    )


def _no_subject(captions: Sequence[ReadCaption], repeated: Sequence[Phrase]) -> Finding | None:
    """The captions of which nothing is left without style, trigger word and repeated phrases."""
    ids = _once(one.image_id for one in captions if _is_bare(one, repeated))
    if not ids:
        return None
    verb = "names" if len(ids) == 1 else "name"
    return Finding(
        Check.SUBJECT,
        Severity.WARNING,
        f"{plural(len(ids), 'caption')} {verb} no subject",
        "Without a word for what the image shows, the subject becomes part of the style.",
        image_ids=ids,
    )


def _is_bare(caption: ReadCaption, repeated: Sequence[Phrase]) -> bool:
    return caption.subject is None or not any(
        _words_left(part, styles, repeated)
        for part, styles in zip(caption.parts, caption.styles, strict=True)
    )


def _words_left(part: Part, styles: Sequence[Span], repeated: Sequence[Phrase]) -> set[str]:
    """The words of a part without trigger word, styles, repeated phrases and words that join."""
    spans = [(at, at + len(core)) for core in repeated for at in _places_of(core, part)]
    covered = {place for start, end in (*styles, *spans) for place in range(start, end)}
    words = {word for place, word in enumerate(part.words) if place not in covered}
    return words - STOP_WORDS - {TRIGGER}


def find_one_subject(captions: Sequence[ReadCaption]) -> Finding | None:
    """That nearly all captions name the same subject."""
    if len(captions) < MIN_CAPTIONS:
        return None
    counted = Counter(one.subject for one in captions if one.subject)
    for subject, count in counted.most_common(1):
        if count >= ONE_SUBJECT_SHARE * len(captions):
            return Finding(
                Check.ONE_SUBJECT,
                Severity.WARNING,
                f"{count:,} of {plural(len(captions), 'caption')} are about “{subject}”",
                "A style is learned from different subjects; of one subject, the subject itself "
                "is learned.",
                image_ids=_once(one.image_id for one in captions if one.subject == subject),
            )
    return None


def _once(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids))


def _repeated_phrases(captions: Sequence[Sequence[Part]], *, at_least: int) -> list[Phrase]:
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
    cores = {_core_of(phrase) for phrase in kept if not _is_inside(phrase, kept)} - {()}
    cores = {core for core in cores if not WEAK.issuperset(core)}
    longest = [core for core in cores if not _is_inside(core, cores)]
    return sorted(longest, key=lambda core: (-counts[core], core))


def _core_of(phrase: Phrase) -> Phrase:
    """The phrase without joining words at both ends: “white background” of “on a white …”."""
    start, end = _core_span(phrase)
    return phrase[start:end]


def _core_span(phrase: Phrase) -> tuple[int, int]:
    """Where the phrase begins and ends without joining words."""
    start, end = 0, len(phrase)
    while start < end and phrase[start] in STOP_WORDS:
        start += 1
    while end > start and phrase[end - 1] in STOP_WORDS:
        end -= 1
    return start, end


def _places_of(core: Phrase, part: Part) -> Iterator[int]:
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
    return any(len(other) > len(phrase) and _has(other, phrase) for other in others)
