"""The words of captions: as text in Python, and as conditions in SQL that agree with it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

# what separates words; everything else, like the hyphen of "close-up", is part of one
SEPARATORS = ',.;:!?()[]{}"“”„…/|\\*<>\t\n'
_TO_SPACES = str.maketrans(dict.fromkeys(SEPARATORS, " "))
_BUT_COMMAS = str.maketrans(dict.fromkeys(SEPARATORS.replace(",", ""), " "))


def normalize_words(text: str) -> str:
    """The words of a text in lower case, with one space between them."""
    return " ".join(text.translate(_TO_SPACES).lower().split())


def normalize_parts(text: str) -> list[str]:
    """What `normalize_words` makes of each part between commas; empty parts are left out."""
    parts = (" ".join(part.split()) for part in text.translate(_BUT_COMMAS).lower().split(","))
    return [part for part in parts if part]


def has_words(caption: Any, words: str) -> sa.ColumnElement[bool]:
    """Condition on a column: the caption contains these words, whole and in this order.

    Capital letters do not matter. A separator between two words counts as a space.
    """
    words = normalize_words(words)
    forms = {words}
    if not words.isascii():
        # SQLite changes the case of ASCII letters only
        forms = {words, words.upper(), words.title(), words[:1].upper() + words[1:]}
    lowered = {"".join(c.lower() if c.isascii() else c for c in form) for form in forms}
    return sa.or_(*(_has_form(caption, form) for form in sorted(lowered)))


def _has_form(caption: Any, words: str) -> sa.ColumnElement[bool]:
    """Condition: the caption has these words, which are normalized.

    To replace every separator takes ten times as long as to look for the letters, so it is done
    only for captions that have them, and not between spaces or before a comma.
    """
    text: sa.ColumnElement[str] = sa.func.lower(caption)
    has_letters = [text.contains(word, autoescape=True) for word in words.split()]
    between_spaces = _padded(text).contains(f" {words} ", autoescape=True)
    before_a_comma = _padded(text).contains(f" {words},", autoescape=True)
    between_any = _padded(_spaced(text)).contains(f" {words} ", autoescape=True)
    return sa.and_(*has_letters, sa.or_(between_spaces, before_a_comma, between_any))


def _spaced(text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The text with a space for each run of up to eight separators.

    Captions have no control characters. ", " becomes two spaces, and each pass halves a run.
    """
    for separator in SEPARATORS.rstrip():
        text = sa.func.replace(text, separator, " ")
    for _ in range(3):
        text = sa.func.replace(text, "  ", " ")
    return text


def _padded(text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The text with a space around it."""
    return sa.literal(" ", sa.Text) + text + sa.literal(" ", sa.Text)
