"""The words of captions: as text in Python, and as conditions in SQL that agree with it.

This is the one place that says whether a caption contains a word or a phrase: for filters,
statistics, checks, bulk edits and runs. Capital letters do not matter. A word ends at a space, at a
mark and at a hyphen, so “ink” is in “ink-style” and not in “pink”; a hyphen that is looked for has
to be there, so “ink-wash” is not in “ink wash”. In scripts that put no space between words, words
are found inside others. Marks alone, such as “***”, are found as they are.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

# what separates words where they are shown and counted; “close-up” is one
SEPARATORS = ',.;:!?()[]{}"“”„…/|\\*<>\t\n'
_TO_SPACES = str.maketrans(dict.fromkeys(SEPARATORS, " "))
_BUT_COMMAS = str.maketrans(dict.fromkeys(SEPARATORS.replace(",", ""), " "))
# Thai, Lao, Burmese, Khmer; Chinese, Japanese
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\uffef]")


def normalize_words(text: str) -> str:
    """The words of a text in lower case, with one space between them."""
    return " ".join(text.translate(_TO_SPACES).lower().split())


def normalize_parts(text: str) -> list[str]:
    """The parts between commas, each through `normalize_words`; empty parts are left out."""
    parts = (" ".join(part.split()) for part in text.translate(_BUT_COMMAS).lower().split(","))
    return [part for part in parts if part]


def contains_words(caption: str, words: str) -> bool:
    """True if the caption contains these words, whole and in this order."""
    if not normalize_words(words):
        return words.strip().lower() in caption.lower()
    return search_key(words) in spread_words(caption)


def spread_words(caption: str) -> str:
    """The words and hyphens of a caption with a space around each; `search_key` is found in it."""
    return f" {_separate_hyphens(normalize_words(caption))} "


def search_key(words: str) -> str:
    """The part of `spread_words` of a caption that contains these words, not marks alone."""
    spread = _separate_hyphens(normalize_words(words))
    return spread if _WITHOUT_SPACES.search(spread) else f" {spread} "


def _separate_hyphens(normalized: str) -> str:
    return " ".join(normalized.replace("-", " - ").split())


def has_words(caption: Any, words: str) -> sa.ColumnElement[bool]:
    """Condition on a column: what `contains_words` says of its text."""
    if not normalize_words(words):
        return sa.func.lower(caption).contains(words.strip().lower(), autoescape=True)
    key = search_key(words)
    forms = {key}
    if not key.isascii():
        # SQLite changes the case of ASCII letters only
        forms = {key, key.upper(), key.title(), key[:2].upper() + key[2:]}
    lowered = {"".join(c.lower() if c.isascii() else c for c in form) for form in forms}
    return sa.or_(*(_has_key(caption, form) for form in sorted(lowered)))


def _has_key(caption: Any, key: str) -> sa.ColumnElement[bool]:
    """Condition: `spread_words` of the caption has this key.

    To replace every separator takes ten times as long as to look for the letters, so it is done
    only for captions that have them, and not between spaces or before a comma.
    """
    text: sa.ColumnElement[str] = sa.func.lower(caption)
    has_letters = [text.contains(word, autoescape=True) for word in key.split()]
    as_written = [_padded(text).contains(key, autoescape=True)]
    if key.endswith(" "):
        as_written.append(_padded(text).contains(f"{key[:-1]},", autoescape=True))
    spread = _padded(_spread_in_sql(text, several=" " in key.strip()))
    return sa.and_(*has_letters, sa.or_(*as_written, spread.contains(key, autoescape=True)))


def _spread_in_sql(text: sa.ColumnElement[str], *, several: bool) -> sa.ColumnElement[str]:
    """`_separate_hyphens` in SQL, in lower case; spaces become one only for `several` words.

    Captions have no control characters.
    """
    for separator in SEPARATORS.rstrip():
        text = sa.func.replace(text, separator, " ")
    text = sa.func.replace(text, "-", " - ")
    if several:  # “<” and “>” are spaces by now, so these pairs are of no caption
        for old, new in ((" ", "<>"), ("><", ""), ("<>", " ")):
            text = sa.func.replace(text, old, new)
    return text


def _padded(text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The text with a space around it."""
    return sa.literal(" ", sa.Text) + text + sa.literal(" ", sa.Text)
