"""The words of captions: as text in Python, and as conditions in SQL that agree with it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

# what separates words; everything else, like the hyphen of "close-up", is part of one
SEPARATORS = ',.;:!?()[]{}"“”„…/|\\*<>\t\n'
_TO_SPACES = str.maketrans(dict.fromkeys(SEPARATORS, " "))


def normalize_words(text: str) -> str:
    """The words of a text in lower case, with one space between them."""
    return " ".join(text.translate(_TO_SPACES).lower().split())


def has_words(caption: Any, words: str) -> sa.ColumnElement[bool]:
    """Condition on a column: the caption contains these words, whole and in this order.

    Capital letters do not matter. A separator between two words counts as a space.
    """
    words = normalize_words(words)
    padded = _spaced(caption)
    if words.isascii():
        return padded.contains(f" {words} ", autoescape=True)
    # SQLite changes the case of ASCII letters only
    forms = {words, words.upper(), words.title(), words[:1].upper() + words[1:]}
    lowered = {"".join(c.lower() if c.isascii() else c for c in form) for form in forms}
    return sa.or_(*(padded.contains(f" {form} ", autoescape=True) for form in sorted(lowered)))


def _spaced(caption: Any) -> sa.ColumnElement[str]:
    """The caption in lower case with spaces for separators, and one around it.

    Captions have no control characters. ", " becomes two spaces, so pairs are made one.
    """
    text: sa.ColumnElement[str] = sa.func.lower(caption)
    for separator in SEPARATORS.rstrip():
        text = sa.func.replace(text, separator, " ")
    text = sa.func.replace(text, "  ", " ")
    return sa.literal(" ", sa.Text) + text + sa.literal(" ", sa.Text)
