"""Trigger words in the prompt of the playground: they come and go with their adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.registry.db import Session
from app.web.playground.adapter_rows import AdapterRow
from app.web.playground.forms import PlayForm
from app.web.playground.stack import StackView, find_version


def with_trigger_words(session: Session, before: PlayForm, form: PlayForm) -> PlayForm:
    """The form with the trigger word of each adapter that was added in its prompt.

    The word of one that was removed is taken out, where it stands between commas as it was added.
    """
    now, then = ([row.slug for row in one.stack] for one in (form, before))
    if now == then:
        return form
    prompt = form.prompt
    words = {row.slug: _words_of(session, row) for row in (*before.stack, *form.stack)}
    still_used = [word for slug in now for word in words[slug]]
    for slug in then:
        if slug not in now and words[slug] and words[slug][0] not in still_used:
            prompt = without_word(prompt, words[slug][0])
    for slug in now:
        if slug not in then and words[slug] and not _has_any(prompt, words[slug]):
            prompt = ", ".join(part for part in (prompt.rstrip(" ,"), words[slug][0]) if part)
    return replace(form, prompt=prompt)


def missing_words(prompt: str, stack: Sequence[StackView]) -> list[tuple[str, str]]:
    """The first trigger word and the name of each adapter at work that the prompt names no word of.

    None for an empty prompt.
    """
    used = [item.adapter for item in stack if item.adapter is not None and item.row.is_on]
    return [
        (adapter.trigger_words[0], adapter.name)
        for adapter in used
        if prompt.strip() and adapter.trigger_words and not _has_any(prompt, adapter.trigger_words)
    ]


def _words_of(session: Session, row: AdapterRow) -> list[str]:
    found = find_version(session, row)
    return [] if isinstance(found, str) else found[0].trigger_words


def _has_any(prompt: str, words: Sequence[str]) -> bool:
    return any(word.casefold() in prompt.casefold() for word in words)


def without_word(prompt: str, word: str) -> str:
    """The prompt without a word that stands alone between commas."""
    parts = prompt.split(",")
    kept = [part for part in parts if part.strip() != word]
    return prompt if kept == parts else ",".join(kept).strip()
