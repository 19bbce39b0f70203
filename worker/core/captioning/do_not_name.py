"""Takes words out of captions that must not be named: the style and its trigger word.

What a caption names does not bind to the trigger word, so a caption says what an image shows and
nothing of how it is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.core.captioning.removing import GAP, close_gaps
from worker.core.captioning.style_words import MEDIA, STYLES_ALONE

MAX_WORDS = 200
MAX_WORD_LENGTH = 80
MADE = r"(?:\s*\b(?:drawn|painted|rendered|done|made|depicted|illustrated))?"
ARTICLE = r"(?:\b(?:an?|the|this)\s+)?"
FILLERS = r"(?:(?:very|simple|beautiful|colorful|modern|{alone})\s+)*".format(
    alone="|".join(re.sub(r"[\s-]+", r"[\\s-]+", one) for one in sorted(STYLES_ALONE, reverse=True))
)
"""Words before a medium that go with it: “a black and white sketch of”."""

VERBS = frozenset(word for word in MEDIA if word.endswith("ing"))
NOT_A_VERB = r"(?!\s+(?:an?|the)\b)"
"""“a girl drawing a map” shows what she does."""


@dataclass(frozen=True)
class Cleaned:
    """A caption, and the words that were taken out of it."""

    text: str
    removed: tuple[str, ...] = ()


def parse_words(text: str) -> tuple[str, ...]:
    """The words of a list separated by commas or lines, each once, in order."""
    words = (" ".join(part.split()) for part in re.split(r"[,\n]", text))
    return _distinct(word for word in words if word)


def remove_words(caption: str, words: Iterable[str]) -> Cleaned:
    """The caption without these words and phrases; case and plurals do not matter.

    “a watercolor painting of a fox, ink style” without watercolor, painting, ink and style is “a
    fox”. A clause that said nothing else goes as a whole.
    """
    phrases = [word for word in words if word.strip()]
    if not phrases or not caption:
        return Cleaned(caption)
    name = _alternatives(phrases)
    found = _distinct(match.group() for match in re.finditer(name, caption, re.IGNORECASE))
    if not found:
        return Cleaned(caption)
    several = rf"{name}(?:[\s-]+(?:and\s+)?{name})*"
    text = caption
    for pattern in (
        rf"{ARTICLE}{FILLERS}{several}\s+(?:of|showing|depicting)\s+",  # a drawing of …
        rf"{MADE}\s*\b(?:in|with|as|using)\s+{ARTICLE}{FILLERS}{several}",  # … in an ink style
    ):
        text = re.sub(pattern, f" {GAP} ", text, flags=re.IGNORECASE)
    text = re.sub(several, GAP, text, flags=re.IGNORECASE)
    return Cleaned(close_gaps(text).strip(" ,;:"), found)


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(word.casefold(), word)
    return tuple(found.values())


def _alternatives(phrases: Sequence[str]) -> str:
    """A pattern of any of these phrases as whole words, the longest first."""
    longest = sorted({phrase.strip() for phrase in phrases}, key=len, reverse=True)
    parts = (
        r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", phrase)))
        + (NOT_A_VERB if phrase.lower() in VERBS else "")
        for phrase in longest
    )
    return rf"(?<![\w])(?:{'|'.join(parts)})(?:e?s)?(?![\w])"
