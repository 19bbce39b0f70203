"""The subjects that the base model in use knows, beside the prompt: search, and put one in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.registry.base_models.subjects import has_subject_list, prompt_note, subjects_of
from app.registry.renders.lora_tags import is_too_long
from app.registry.tables.base_models import BaseModel
from app.registry.wording import plural
from app.web.playground.forms import PlayForm
from app.web.playground.stack import CheckedStack
from worker.core.inference.prompt_syntax import parse_prompt
from worker.core.starter.subjects import KnownSubject

SHOWN = 24  # subjects shown at once


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
    parsed = parse_prompt(form.prompt)
    return " ".join([*parsed.notes, prompt_note(stack.base, parsed.text, taught=taught)]).strip()
