"""What bulk edits do with one caption: functions of its text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from app.registry.datasets.caption_words import contains_words
from app.registry.datasets.captions import clean_caption
from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.find_replace import TimeLimit, pattern_rule
from app.registry.datasets.edits.removing import remove_words, without_loose_commas

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
        EditAction.REMOVE_WORDS: partial(remove_words, phrases=text.split(",")),
        EditAction.WRITE: lambda _: text,
    }
    rule = rules.get(edit.action) or _tidied(pattern_rule(edit, limit), edit.replacement)
    return lambda caption: clean_caption(rule(caption))


def _tidied(replace: Rule, replacement: str) -> Rule:
    """The rule, without commas that it leaves loose; those of the replacement stay."""
    if "," in replacement:
        return replace

    def tidied(caption: str) -> str:
        text = replace(caption)
        is_loose = _loose_commas(text) > _loose_commas(caption)
        return without_loose_commas(text) if is_loose else text

    return tidied


def _loose_commas(text: str) -> int:
    return sum(not part.strip() for part in text.split(","))


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
