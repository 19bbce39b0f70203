"""Renames and annotates runs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.errors import InvalidInput
from app.registry.runs import checkpoints, requests, service
from app.registry.tables.runs import Run
from app.registry.validation import named_reasons, one_line, printable, too_long

MAX_NOTES = 4_000


@dataclass(frozen=True)
class RunChange:
    """Changes to a run; None leaves a value unchanged."""

    name: str | None = None
    notes: str | None = None


def change_run(session: Session, run_id: int, change: RunChange) -> Run:
    """Change the name or the notes of a run.

    The adapter that it made keeps its name; an adapter that it will make gets the new one. Raises
    NotFound and InvalidInput.
    """
    run = service.get_run(session, run_id, lock=True)
    name = run.name if change.name is None else one_line(change.name)
    notes = run.notes if change.notes is None else _clean(change.notes)
    fields: dict[str, str] = {}
    if not name:
        fields["name"] = "A run needs a name."
    elif len(name) > requests.MAX_NAME:
        fields["name"] = too_long(name, requests.MAX_NAME)
    if len(notes) > MAX_NOTES:
        fields["notes"] = too_long(notes, MAX_NOTES)
    if fields:
        raise InvalidInput(named_reasons(fields), fields=fields)
    run.name, run.notes = name, notes
    session.add(run)
    address = checkpoints.address_of(session, run_id)
    if address is not None:
        address.name = name
        session.add(address)
    session.flush()
    return run


def _clean(notes: str) -> str:
    return printable(notes.replace("\r\n", "\n")).strip()
