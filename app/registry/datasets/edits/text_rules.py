"""What bulk edits do with one caption: functions of its text."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from app.registry.datasets.caption_words import contains_words
from app.registry.datasets.captions import clean_caption
from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.find_replace import TimeLimit, pattern_rule

Rule = Callable[[str], str]


def rule_of(edit: Edit, limit: TimeLimit) -> Rule:
    """The function that gives the new text of a caption.

    It raises CaptionRefused if that is too long, and InvalidInput at the end of the time limit.
    """
    text = clean_caption(edit.text)
    rules: dict[EditAction, Rule] = {
        EditAction.ADD_TRIGGER: partial(_add_word, word=text, at_end=edit.at_end),
        EditAction.PREPEND: partial(_join, text=text, at_end=False, with_space=edit.with_space),
        EditAction.APPEND: partial(_join, text=text, at_end=True, with_space=edit.with_space),
        EditAction.REMOVE_TAG: partial(_remove_tag, tag=text),
        EditAction.REMOVE_WORDS: partial(_remove_words, words=text),
        EditAction.WRITE: lambda _: text,
    }
    rule = rules.get(edit.action) or pattern_rule(edit, limit)
    return lambda caption: clean_caption(rule(caption))


def _words(words: str) -> re.Pattern[str]:
    """These words in any case and with any spaces between, not as a part of longer words."""
    inner = r"\s+".join(re.escape(word) for word in words.split())
    return re.compile(rf"(?<!\w){inner}(?!\w)", re.IGNORECASE)


def _add_word(caption: str, *, word: str, at_end: bool) -> str:
    return caption if contains_words(caption, word) else _join(caption, text=word, at_end=at_end)


def _join(caption: str, *, text: str, at_end: bool, with_space: bool = False) -> str:
    between = " " if with_space else ", "
    parts = [caption.rstrip(" ,") if between == ", " else caption, text]
    if not at_end:
        parts = [text.rstrip(" ,") if between == ", " else text, caption]
    return between.join(part for part in parts if part)


def _remove_tag(caption: str, *, tag: str) -> str:
    unwanted = tag.strip(" ,").casefold()
    tags = caption.split(",")
    kept = [part for part in tags if part.strip().casefold() != unwanted]
    return ",".join(kept) if len(kept) < len(tags) else caption


def _remove_words(caption: str, *, words: str) -> str:
    """The caption without these words or phrases, which commas separate; long ones go first."""
    phrases = sorted((part for part in words.split(",") if part.strip()), key=len, reverse=True)
    left = caption
    for phrase in phrases:
        left = _words(phrase).sub("", left)
    return _without_loose_commas(left) if left != caption else caption


def _without_loose_commas(text: str) -> str:
    """The text without the commas that a removal left without words between them."""
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part)
