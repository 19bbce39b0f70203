"""The page of base models: what there is, and a form to add one by its path."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.base_models import service
from app.base_models.models import BaseModel, BaseModelStatus
from app.errors import AppError, Conflict, InvalidInput
from app.forms import SentForm
from app.state import AppState, State
from app.web import render

router = APIRouter(include_in_schema=False)

EMBEDDED = service.EMBEDDED


@dataclass(frozen=True)
class BaseModelsPage:
    """All base models, and the form for another one."""

    bases: list[BaseModel]
    embedded: str
    is_checking: bool
    can_add: bool
    source: str
    error: str


@router.get("/base-models")
def index(request: Request, state: State) -> Response:
    """All base models."""
    return render(request, "base_models/index.html", _page(state))


@router.post("/base-models")
def add(request: Request, state: State, sent: SentForm) -> Response:
    """Add a base model by its path; a path that cannot be used comes back with the reason."""
    source = str(sent.get("source", "")).strip()
    try:
        with state.database.write() as session:
            service.add_base_model(
                session, source, allowed_folders=service.allowed_folders(state.settings)
            )
    except (InvalidInput, Conflict) as error:
        context = _page(state, source=source, error=error)
        return render(request, "base_models/index.html", context, status=error.status)
    return RedirectResponse("/base-models", status_code=303)


def _page(state: AppState, *, source: str = "", error: AppError | None = None) -> BaseModelsPage:
    with state.database.read() as session:
        bases = service.list_base_models(session)
    return BaseModelsPage(
        bases=bases,
        embedded=EMBEDDED,
        is_checking=any(base.status == BaseModelStatus.CHECKING for base in bases),
        can_add=service.allowed_folders(state.settings) != [],
        source=source,
        error=error.detail if error else "",
    )
