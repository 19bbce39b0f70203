"""The prompt of the playground: trigger words that come and go with adapters, subjects, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.registry.base_models.subjects import has_subject_list, prompt_note, subjects_of
from app.registry.db import Session
from app.registry.renders.lora_tags import is_too_long
from app.registry.tables.added_models import BaseModel
from app.registry.wording import plural
from app.web.playground.adapter_rows import AdapterRow
from app.web.playground.forms import PlayForm
from app.web.playground.stack import CheckedStack, StackView, find_version
from worker.core.inference.prompt_syntax import has_syntax, parse_prompt
from worker.core.starter.subjects import KnownSubject

SHOWN = 24  # subjects shown at once
NO_WEIGHTS = "{family} has no weights in prompts: it reads brackets and numbers as they are."


@dataclass(frozen=True)
class SubjectChoices:
    """The subjects that match a search; without words, some of one word from all over the list."""

    base: BaseModel
    words: str
    shown: Sequence[KnownSubject]
    found: int
    total: int

    @property
    def hint(self) -> str:
        """A sentence about the search."""
        if not self.words:
            return f"{len(self.shown)} of {plural(self.total, 'subject')}."
        if not self.found:
            return f"{self.base.name} has no drawing of “{self.words}”."
        count = plural(self.found, "subject")
        return f"{count} found{f', the first {SHOWN} shown' if self.found > SHOWN else ''}."


def find_subjects(form: PlayForm, base: BaseModel) -> SubjectChoices | None:
    """The choices for the search in the form; None if the base brings no list."""
    if not has_subject_list(base):
        return None
    words, total = form.subject.strip(), len(subjects_of(base))
    found = subjects_of(base, words)
    short = [known for known in found if " " not in known.name]
    shown = found if words else short[:: max(1, len(short) // SHOWN)]
    return SubjectChoices(base, words, shown[:SHOWN], len(found), total)


def note_of(form: PlayForm, stack: CheckedStack) -> str:
    """The parts of the prompt that are invalid or not known to the base in use; else empty.

    Of a prompt that is too long, only that is said, when it is sent.
    """
    if is_too_long(form.prompt):
        return ""
    used = [row.adapter for row in stack.rows if row.adapter is not None and row.row.is_on]
    taught = [word for adapter in used for word in adapter.trigger_words]
    options = stack.base.options
    parsed = parse_prompt(form.prompt, has_weights=options.has_prompt_weights)
    notes = [*parsed.notes, prompt_note(stack.base, parsed.text, taught=taught)]
    if not options.has_prompt_weights and has_syntax(form.prompt):
        notes.append(NO_WEIGHTS.format(family=stack.base.family_label))
    return " ".join(notes).strip()


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
