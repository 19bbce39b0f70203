"""Removes words from a caption so that what is left reads well.

Only the places where words were taken out are mended: an article without its noun, “of” without
what it belongs to, “a” before a vowel, marks with nothing between. The rest stays as it was
written. The rules are for English; in other languages, spaces and marks are mended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from worker.core.captioning.style_words import ARTICLES, STOP_WORDS

GAP, GAP_OF = "\0", "\1"  # words were taken out here; GAP_OF: they led to what follows
LEADING = frozenset({"of", "showing", "shows", "depicting", "depicts"})  # “a drawing of” a fox
LINKS = frozenset({"and", "or"})
JOINING = frozenset({"against", "as", "at", "by", "from", "in", "into", "of", "on", "with"}) | LINKS
"""Words that say nothing without what follows them; “up” and “around” do."""
QUALIFIERS = frozenset({"very"})  # joining words that an article stands before

ANY_GAP = re.compile(rf"([{GAP}{GAP_OF}])")
SEVERAL_GAPS = re.compile(rf"[{GAP}{GAP_OF}](?:\s*([{GAP}{GAP_OF}]))+")
MARKS = re.compile(rf"([,;!?]|[.:](?=[\s{GAP}{GAP_OF}]|$))")
ENDS = (".", "!", "?")  # of sentences
# written with a vowel and spoken with a consonant, and the other way round
SPOKEN_WITH_CONSONANT = re.compile(r"(?:uni(?![mn])|us[ae]|uten|eu|ewe|one\b|once\b|uk|u-)", re.I)
SPOKEN_WITH_VOWEL = re.compile(r"(?:heir|hono|hour|honest)", re.I)
MAX_NESTED = 10  # brackets around nothing, one in the other, that are taken away
# in one way only: with several, the time would grow with the square of the digits
NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
EMPTY_BRACKETS = re.compile(rf"[(\[{{“„‘\"]\s*[{GAP}{GAP_OF}]\s*(?::{NUMBER})?\s*[)\]}}”“’\"]")


def remove_words(caption: str, phrases: Sequence[str]) -> str:
    """The caption without these words and phrases in any case; as it is if it has none of them."""
    text = caption
    for phrase in sorted(phrases, key=len, reverse=True):
        if words := phrase.split():
            gap = GAP_OF if words[-1].lower() in LEADING else GAP
            text = words_pattern(phrase).sub(gap, text)
    return close_gaps(text) if text != caption else caption


def words_pattern(words: str) -> re.Pattern[str]:
    """These words in any case and with any spaces between, not as a part of longer words."""
    inner = r"\s+".join(re.escape(word) for word in words.split())
    return re.compile(rf"(?<!\w){inner}(?!\w)", re.IGNORECASE)


def without_loose_commas(text: str) -> str:
    """The text without commas that have no words between them."""
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part)


def close_gaps(text: str) -> str:
    """The text with its gaps (`GAP`, `GAP_OF`) closed, part by part between marks."""
    for _ in range(MAX_NESTED):
        text, number = EMPTY_BRACKETS.subn(GAP, text)
        if not number:
            break
    pieces = MARKS.split(SEVERAL_GAPS.sub(r"\1", text))
    kept: list[list[str]] = []  # part and the mark after it
    for part, mark in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        mended = _mend_part(part)
        if mended or not ANY_GAP.search(part):
            kept.append([mended, mark])
        elif kept and kept[-1][1] not in ENDS and (mark in ENDS or not mark):
            kept[-1][1] = mark
    return without_loose_commas("".join(piece for pair in kept for piece in pair))


def _mend_part(part: str) -> str:
    """The part with its gaps closed, and the space before it; "" if it says nothing any longer."""
    first, *rest = ANY_GAP.split(part)
    if not rest:
        return part
    left = first.split()
    for gap, text in zip(rest[::2], rest[1::2], strict=True):
        left = _close(left, text.split(), leads=gap == GAP_OF)
    if all(word.lower() in STOP_WORDS for word in left):
        return ""
    joined = " ".join(left)
    joined = re.sub(r"([(\[{“„]) ", r"\1", re.sub(r" ([)\]}”])", r"\1", joined))
    return f" {joined}" if part[:1] == " " else joined


def _close(left: list[str], right: list[str], *, leads: bool) -> list[str]:
    """The words before and after a gap as one text; `leads`: the gap led to those after it."""
    if right and right[0].lower() == "of" and (not left or left[-1].lower() in ARTICLES):
        right = right[1:]  # “a (drawing) of the fox”
    if right and right[0].lower() in LINKS and (not left or left[-1].lower() in ARTICLES | JOINING):
        right = right[1:]  # “a (watercolor) and ink painting”
    while left and _is_loose(left[-1].lower(), right[0].lower() if right else ""):
        left = left[:-1]
    if left and right:
        left = [*left[:-1], fitting_article(left[-1], right[0])]
        if leads and _names_something(left[-1]):  # “a chalk style (drawing of) a fox”
            left = [*_without_first_article(left[:-1]), f"{left[-1]},"]
    return left + right


def _without_first_article(words: list[str]) -> list[str]:
    """The words without the article that they begin with, where it was that of a word that left."""
    is_of_last = not any(word.lower() in STOP_WORDS for word in words[1:])
    return words[1:] if words and words[0].lower() in ARTICLES and is_of_last else words


def _is_loose(word: str, following: str) -> bool:
    """True if a word before a gap says nothing with the word after it; "": the part ends there."""
    if word in ARTICLES:
        return not following or following in STOP_WORDS - QUALIFIERS
    return word in JOINING and (not following or following in JOINING)


def _names_something(word: str) -> bool:
    return word.lower() not in STOP_WORDS and not word.endswith((",", "ing"))


def fitting_article(article: str, word: str) -> str:
    """The article as it is spoken before this word; other articles than “a” and “an” stay."""
    if article.lower() not in ("a", "an"):
        return article
    starts_with_vowel = word[:1].lower() in "aeiou" and not SPOKEN_WITH_CONSONANT.match(word)
    is_an = starts_with_vowel or SPOKEN_WITH_VOWEL.match(word)
    return article[0] + ("n" if is_an else "")
