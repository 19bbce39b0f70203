"""The page of caption models: the list, and a form to add one from a folder or from the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.registry.caption_models import service
from app.registry.caption_models.service import ListedModel
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.hub_source import is_allowed
from app.registry.model_sources import allowed_folders, delete_model_files
from app.registry.state import AppState
from app.web.forms import SentForm
from app.web.state import Id, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

ADDRESS = "/caption-models"


@dataclass(frozen=True)
class ShownModel:
    """A caption model of the list.

    `problem`: why it cannot be used, unless that is about to change. `deletes_files`: whether
    removing it does.
    """

    listed: ListedModel
    problem: str
    deletes_files: bool


@dataclass(frozen=True)
class CaptionModelsPage:
    """All caption models, and the form to add one.

    `refused`: why what was asked for was not done.
    """

    models: list[ShownModel]
    is_moving: bool
    can_add: bool
    hub: bool
    source: str
    error: str
    refused: str


@router.get(ADDRESS)
def index(request: Request, state: State) -> Response:
    """List all caption models."""
    return render(request, "caption_models/index.html", _page(state))


@router.post(ADDRESS)
def add(request: Request, state: State, sent: SentForm) -> Response:
    """Add a caption model by path or name; an unusable one is answered with the reason."""
    source = str(sent.get("source", "")).strip()
    try:
        with state.database.write() as session:
            service.add(session, source, state.settings)
    except AppError as error:
        context = _page(state, source=source, error=error.detail)
        return render(request, "caption_models/index.html", context, status=error.status)
    return RedirectResponse(ADDRESS, status_code=303)


@router.post(f"{ADDRESS}/{{model_id}}/check")
def check(request: Request, model_id: Id, state: State) -> Response:
    """Check a caption model again, or resume its download."""
    return _done(
        request, state, lambda session: service.check_again(session, model_id, state.settings)
    )


@router.post(f"{ADDRESS}/{{model_id}}/cancel")
def cancel(request: Request, model_id: Id, state: State) -> Response:
    """Stop a download."""
    return _done(request, state, lambda session: service.cancel(session, model_id))


@router.post(f"{ADDRESS}/{{model_id}}/remove")
def remove(request: Request, model_id: Id, state: State) -> Response:
    """Remove a caption model from the list, with its downloaded files."""
    places: list[Path | None] = []

    def remove_one(session: Session) -> None:
        places.append(service.remove(session, model_id, state.settings))

    answer = _done(request, state, remove_one)
    for place in places:
        if place is not None:
            delete_model_files(place)
    return answer


def _done(request: Request, state: AppState, act: Callable[[Session], object]) -> Response:
    """The page again after an act, or with the reason why it was refused."""
    try:
        with state.database.write() as session:
            act(session)
    except AppError as error:
        context = _page(state, refused=error.detail)
        return render(request, "caption_models/index.html", context, status=error.status)
    return RedirectResponse(ADDRESS, status_code=303)


def _page(
    state: AppState, *, source: str = "", error: str = "", refused: str = ""
) -> CaptionModelsPage:
    with state.database.read() as session:
        models = [_shown(session, state, row) for row in service.list_models(session)]
    hub = is_allowed(state.settings)
    return CaptionModelsPage(
        models=models,
        is_moving=any(shown.listed.is_moving for shown in models),
        can_add=hub or allowed_folders(state.settings) != [],
        hub=hub,
        source=source,
        error=error,
        refused=refused,
    )


def _shown(session: Session, state: AppState, row: ListedModel) -> ShownModel:
    problem = "" if row.is_moving else row.error or service.problem_of(row.model)
    return ShownModel(row, problem, service.deletes_files(session, row.model, state.settings))
