"""The page of prompt sets: create, change and delete them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from app.registry import prompt_sets
from app.registry.datasets.figures import DatasetChoice, dataset_choices
from app.registry.db import Session
from app.registry.errors import Conflict, InvalidInput
from app.registry.tables.prompt_sets import PromptSet
from app.web.access.needs import Action, Router
from app.web.form_reader import FormReader, split_lines
from app.web.forms import SentForm
from app.web.state import Reading, State
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class SetForm:
    """The form of a set, or of a new one, as typed."""

    row: PromptSet | None
    name: str
    subjects: str
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptSetsPage:
    """The forms of all sets by their ids, with that of a new one under 0.

    `dataset`: whose captions name none of the subjects that the new one proposes.
    """

    forms: dict[int, SetForm]
    datasets: list[DatasetChoice]
    dataset: int | None


@router.get("/prompt-sets", Action.LOOK)
def show(
    request: Request, session: Reading, dataset: Annotated[str, Query(max_length=140)] = ""
) -> Response:
    """Show the sets, and the form of a new one with subjects that a dataset does not show."""
    return render(request, "runs/prompt_sets.html", _page(session, dataset))


@router.post("/prompt-sets", Action.CREATE)
def save(request: Request, state: State, sent: SentForm) -> Response:
    """Create or change a set; on an error show the page again with what was typed."""
    form = FormReader(sent)
    key, name, text = form.whole("set_id", 0), form.text("name"), form.text("subjects")
    try:
        with state.database.write() as session:
            if key:
                row = prompt_sets.change_set(session, key, name, split_lines(text))
            else:
                row = prompt_sets.create_set(session, name, split_lines(text))
    except (InvalidInput, Conflict) as error:
        with state.database.read() as session:
            page = _page(session)
        errors = error.fields or {"name": error.detail}
        page.forms[key] = SetForm(page.forms[key].row, name, text, errors)
        return render(request, "runs/prompt_sets.html", page, status=error.status)
    return redirect_with_notice("/prompt-sets", f"“{row.name}” has version {row.version} now.")


def _page(session: Session, dataset: str = "") -> PromptSetsPage:
    datasets, sets = dataset_choices(session), prompt_sets.list_sets(session)
    chosen = next((one.id for one in datasets if dataset in (one.slug, str(one.id))), None)
    forms = {0: SetForm(None, "", "\n".join(prompt_sets.propose(session, chosen)))}
    forms |= {row.key: SetForm(row, row.name, "\n".join(row.subjects)) for row in sets}
    return PromptSetsPage(forms, datasets, chosen)
