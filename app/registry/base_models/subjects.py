"""The subjects that a base model knows by name, for bases that bring such a list.

Only the embedded one does. Its drawings are few and named, so a page can say what it knows, and
which words of a prompt it was never taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.registry.tables.added_models import BaseModel
from app.registry.wording import join_words, plural
from worker.core import starter
from worker.core.starter.prompt_words import read_prompt, search_subjects
from worker.core.starter.subjects import KnownSubject, known_subjects

MAX_NAMED = 5  # words that a note names; of more it gives the number


def has_subject_list(base: BaseModel) -> bool:
    """True if the base model has a list of its subjects."""
    return base.location == starter.PATH


def subjects_of(base: BaseModel, words: str = "") -> Sequence[KnownSubject]:
    """Its subjects that match all words, best matches first; none if it brings no list."""
    if not has_subject_list(base):
        return ()
    return search_subjects(words) if words.strip() else known_subjects()


def prompt_note(base: BaseModel, prompt: str, *, taught: Iterable[str] = ()) -> str:
    """The words of a prompt that the base does not know, in a sentence or two; empty if none.

    `taught` are the trigger words of adapters. Always empty for a base without a list.
    """
    if not prompt.strip() or not has_subject_list(base):
        return ""
    reading = read_prompt(prompt, taught=taught)
    sentences = []
    if reading.unknown:
        sentences.append(f"{base.name} does not know {_quote(reading.unknown)}.")
        if reading.similar:
            sentences.append(f"It knows {_quote(reading.similar)}.")
    if not reading.has_subject:
        sentences.append(
            f"The prompt names no subject that {base.name} can draw: choose one from its list."
        )
    return " ".join(sentences)


def _quote(words: Sequence[str]) -> str:
    """“a”, “b” and 3 other words."""
    quoted = [f"“{word[:40]}”" for word in words[:MAX_NAMED]]
    if len(words) > MAX_NAMED:
        quoted.append(plural(len(words) - MAX_NAMED, "other word"))
    return join_words(quoted)
