"""Prompt sets: subjects under a name, of which each change is a new version that stays.

Evaluations on the same version draw the same prompts, so that their scores compare across runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlmodel import Session, col, select

from app.registry.datasets import service as datasets
from app.registry.datasets.pinned import current_items
from app.registry.datasets.several_captions import item_captions
from app.registry.db import utcnow
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.job_kinds.kinds import UsedPromptSet
from app.registry.slugs import id_of, insert_named
from app.registry.tables.owned import everything
from app.registry.tables.prompt_sets import PromptSet
from app.registry.validation import checked_name, one_line, too_long
from app.registry.wording import plural
from worker.core.evaluation.subjects import MOST_SUBJECTS, free_subjects

MAX_SETS = 50
MAX_VERSIONS = 100
FEWEST_SUBJECTS = 6  # fewer give no intervals
MAX_SUBJECT = 120  # characters
PROPOSED = 24
NOT_PLAIN = re.compile(r"[][(){}<>|\\]|--|\bBREAK\b")  # prompts read it as weights and options


def list_sets(session: Session) -> list[PromptSet]:
    """All prompt sets, the newest first."""
    there = select(PromptSet).where(col(PromptSet.deleted_at).is_(None))
    return list(session.exec(there.order_by(col(PromptSet.id).desc())))


def set_choices(session: Session) -> list[tuple[object, str]]:
    """All prompt sets for a list to choose from, by their ids."""
    sets = list_sets(session)
    return [(one.id, f"{one.name}, {plural(len(one.subjects), 'subject')}") for one in sets]


def get_set(session: Session, set_id: int, *, lock: bool = False) -> PromptSet:
    """Look up a set; with `lock` it stays as it is until the end. Raises NotFound."""
    found = session.get(PromptSet, set_id, with_for_update=lock)
    if found is None or found.deleted_at is not None:
        raise NotFound("There is no such prompt set; it may have been deleted.")
    return found


def find_version(session: Session, reference: int | str) -> tuple[UsedPromptSet, list[str]]:
    """The version that a request names, with its subjects.

    `animals` or the id of a set names its newest version, `animals@2` the second. Raises
    InvalidInput for `prompt_set`.
    """
    name, _, number = str(reference).partition("@")
    try:
        row = get_set(session, id_of(session, PromptSet, name))
    except NotFound as error:
        raise invalid_field("prompt_set", error.detail) from None
    versions = {str(place): subjects for place, subjects in enumerate(row.versions, 1)}
    number = number or str(row.version)
    if number not in versions:
        raise invalid_field("prompt_set", f"“{row.name}” has versions 1 to {row.version}.")
    used = UsedPromptSet(id=row.key, name=row.name, version=int(number))
    return used, versions[number]


def propose(session: Session, dataset_id: int | None = None) -> list[str]:
    """Everyday subjects that no caption of a dataset names. Raises NotFound."""
    items = []
    if dataset_id is not None:
        items = current_items(session, datasets.get_dataset(session, dataset_id).key)
    return free_subjects([text for item in items for text in item_captions(item)])[:PROPOSED]


def create_set(session: Session, name: str, subjects: Iterable[str]) -> PromptSet:
    """Create a set. Raises InvalidInput, or Conflict if there are `MAX_SETS` already."""
    name, checked = checked_name(name), _checked(subjects)
    with everything(session):
        number = len(list_sets(session))
    if number >= MAX_SETS:
        raise Conflict(f"There are {MAX_SETS} prompt sets already. Delete one first.")
    return insert_named(session, PromptSet, name, fallback="set", versions=[checked])


def change_set(
    session: Session, set_id: int, name: str | None = None, subjects: Iterable[str] | None = None
) -> PromptSet:
    """Rename a set, or add a version with other subjects.

    Raises NotFound, InvalidInput, or Conflict if it has `MAX_VERSIONS` already.
    """
    row = get_set(session, set_id, lock=True)
    row.name = row.name if name is None else checked_name(name)
    checked = row.subjects if subjects is None else _checked(subjects)
    if checked != row.subjects:
        if row.version >= MAX_VERSIONS:
            raise Conflict(f"This set has {MAX_VERSIONS} versions. Create a new one.")
        row.versions = [*row.versions, checked]
    return row


def delete_set(session: Session, set_id: int) -> PromptSet:
    """Delete a set until it is restored; what was drawn with it stays. Raises NotFound."""
    row = get_set(session, set_id, lock=True)
    row.deleted_at = utcnow()
    return row


def _checked(subjects: Iterable[str]) -> list[str]:
    """The subjects, each on one line, without empty ones. Raises InvalidInput."""
    lines = [line for one in subjects if (line := one_line(one))]
    if not FEWEST_SUBJECTS <= len(lines) <= MOST_SUBJECTS:
        raise invalid_field(
            "subjects",
            f"A set has {FEWEST_SUBJECTS} to {MOST_SUBJECTS} subjects, not {len(lines):,}.",
        )
    seen = set[str]()
    for line in lines:
        problem = "it is there twice." if line.casefold() in seen else ""
        if NOT_PLAIN.search(line):
            problem = "write plain words, without brackets and options."
        if len(line) > MAX_SUBJECT:
            problem = too_long(line, MAX_SUBJECT)
        if problem:
            raise invalid_field("subjects", f"“{line[:40]}”: {problem}")
        seen.add(line.casefold())
    return lines
