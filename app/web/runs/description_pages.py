"""The page on which a run is renamed and annotated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.errors import InvalidInput
from app.registry.runs import requests, service
from app.registry.runs.description import MAX_NOTES, RunChange, change_run
from app.registry.tables.runs import Run
from app.web.addresses import MAX_ADDRESS, own_address
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Id, State
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)

FIELDS = ("name", "notes")
Back = Annotated[str, Query(max_length=MAX_ADDRESS)]


@dataclass(frozen=True)
class DescriptionPage:
    """The form: typed values, errors by field, and the stored texts it began with, as tokens.

    `other`: the stored value of a field that was changed elsewhere meanwhile.
    """

    run: Run
    values: dict[str, str]
    tokens: dict[str, str]
    back: str
    errors: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    max_name: int = requests.MAX_NAME
    max_notes: int = MAX_NOTES


@router.get("/runs/{run_id}/edit")
def edit_run(request: Request, run_id: Id, state: State, back: Back = "") -> Response:
    """Show the form that renames and annotates a run."""
    with state.database.read() as session:
        run = service.get_run(session, run_id)
    values = {name: str(getattr(run, name)) for name in FIELDS}
    page = DescriptionPage(run, values, _tokens(run), _back(run_id, back))
    return render(request, "runs/edit.html", page)


@router.post("/runs/{run_id}/edit")
def save_run(request: Request, run_id: Id, state: State, sent: SentForm) -> Response:
    """Save what was changed in the form, then go back; nothing that came from elsewhere is lost.

    A field that was changed here and meanwhile elsewhere is shown again, with both values.
    """
    form = FormReader(sent)
    back = _back(run_id, form.text("back"))
    values = {name: form.text(name) for name in FIELDS}
    other: dict[str, str] = {}
    try:
        with state.database.write() as session:
            run = service.get_run(session, run_id, lock=True)
            tokens = _tokens(run)
            changed = {name for name in FIELDS if _token(values[name]) != form.text(f"seen_{name}")}
            for name in changed:
                if tokens[name] not in (form.text(f"seen_{name}"), _token(values[name])):
                    other[name] = str(getattr(run, name))
            if not other:
                change = RunChange(**{name: values[name] for name in changed})
                run = change_run(session, run_id, change)
    except InvalidInput as error:
        page = DescriptionPage(run, values, tokens, back, errors=error.fields)
        return render(request, "runs/edit.html", page, status=422)
    if other:
        page = DescriptionPage(run, values, tokens, back, other=other)
        return render(request, "runs/edit.html", page, status=409)
    return redirect_with_notice(back, f"Saved “{run.name}”.")


def _back(run_id: int, address: str) -> str:
    return own_address(address) if address else f"/runs/{run_id}"


def _tokens(run: Run) -> dict[str, str]:
    return {name: _token(str(getattr(run, name))) for name in FIELDS}


def _token(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
