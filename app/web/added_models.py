"""The parts that base models and caption models share: answers of the API, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from app.registry.added_models import service
from app.registry.added_models.downloads import Download
from app.registry.added_models.service import (
    ListedModel,
    ModelKind,
    allowed_folders,
    delete_model_files,
)
from app.registry.blobs.deletion import FreedSpace
from app.registry.config import Settings
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.hub_source import is_allowed
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.web.access.needs import Action, Router
from app.web.answers import OwnedAnswer
from app.web.deletion.nouns import FOREVER
from app.web.forms import SentForm
from app.web.problems import problems
from app.web.state import Id, State, named

Out = TypeVar("Out", bound="ModelOut")
NOT_ADDED = problems(
    {403: "Hugging Face access is off on this server.", 409: "It has already been added."}
)
PRECISIONS = {
    "fp16": "fp16: half the download size",
    "fp32": "fp32: full precision if available",
}


class ModelOut(OwnedAnswer):
    """A model that was added from a path or from the Hub."""

    name: str = Field(description="Its name.")
    status: ModelStatus = Field(description="Only those that are `ready` can be used.")
    error: str | None = Field(description="Why it cannot be used, as a sentence.")
    source: str = Field(description="Its path or its name on the Hub.")
    revision: str | None = Field(description="Commit of a download from the Hub.")
    download: Download | None = Field(description="Progress while it is being downloaded.")
    size_bytes: int | None = Field(description="Size of its files.")


def model_out(answer: type[Out], row: ListedModel[Any], **more: Any) -> Out:
    """A model as the API shows it: the columns that `answer` lists, its state now, and `more`."""
    return answer.of(row, row.model, source=row.model.place, **more)


@dataclass(frozen=True)
class SentModel:
    """The fields of a sent form, and why no model was added (`error`).

    `refused`: why another act was not done.
    """

    source: str = ""
    precision: str = ""
    error: str = ""
    refused: str = ""


@dataclass(frozen=True)
class ModelsPage:
    """The models of a kind, and the form to add one.

    `removals`: by the ids of models that can be removed, the effects of that.
    """

    kind: ModelKind[Any]
    models: Sequence[ListedModel[Any]]
    removals: Mapping[int, Any]
    is_changing: bool
    can_add: bool
    hub: bool
    sent: SentModel


def models_page(
    state: AppState,
    kind: ModelKind[Any],
    models: Sequence[ListedModel[Any]],
    removals: Mapping[int, Any],
    sent: SentModel,
) -> ModelsPage:
    """The page with these models, after a form was sent or an act was refused."""
    hub = is_allowed(state.settings)
    return ModelsPage(
        kind=kind,
        models=models,
        removals=removals,
        is_changing=any(row.is_changing for row in models),
        can_add=hub or allowed_folders(state.settings) != [],
        hub=hub,
        sent=sent,
    )


Remove = Callable[[Session, int, Settings], Path | None]
"""Removes a model by its id; the path of the files to delete after the commit, if any."""


def add_removal(
    router: Router, kind: ModelKind[Any], remove: Remove, *, about: str, conflict: str
) -> None:
    """Register the routes of the API that remove a model, and say what that would free."""
    address = f"{FOREVER}{kind.address}/{{model_id}}"
    name, model = kind.name.replace(" ", "_"), named("model_id", kind.table)
    removed = f"Remove a {kind.name} for good; it can be added again.\n\n{about}"
    asked = f"Get what removing a {kind.name} would free."
    more: dict[str, Any] = {"responses": problems({409: conflict})}

    def free(state: AppState, model_id: int, *, is_preview: bool) -> FreedSpace:
        with state.database.write() as session:
            place = remove(session, model_id, state.settings)
            if is_preview:
                session.rollback()
        sizes = _file_sizes(place)
        if not is_preview:
            delete_model_files(place)
        title = f"{kind.name} {model_id}"
        return FreedSpace(title, files=len(sizes), size_bytes=sum(sizes))

    @router.get(address, Action.ADMIN, name=f"preview_{name}_removal", description=asked, **more)
    def preview(state: State, model_id: int = model) -> FreedSpace:
        return free(state, model_id, is_preview=True)

    @router.delete(address, Action.ADMIN, name=f"remove_{name}", description=removed, **more)
    def delete(state: State, model_id: int = model) -> FreedSpace:
        return free(state, model_id, is_preview=False)


def _file_sizes(place: Path | None) -> list[int]:
    """The sizes of the files of a model, in bytes; links are no files."""
    if place is None:
        return []
    found = place.rglob("*") if place.is_dir() else [place]
    return [path.lstat().st_size for path in found if path.is_file() and not path.is_symlink()]


@dataclass(frozen=True)
class ModelPages:
    """The routes of the page of a kind: `show` answers with it, `remove` removes a model by id."""

    kind: ModelKind[Any]
    show: Callable[[Request, AppState, SentModel, int], Response]
    remove: Remove

    def carry_out(
        self,
        request: Request,
        state: AppState,
        act: Callable[[Session], object],
        form: SentModel | None = None,
    ) -> Response:
        """Carry out an act and go back to the list, which says why if the act is refused.

        `form`: what was sent to add a model, if that is the act. The act may return the path of
        files to delete.
        """
        try:
            with state.database.write() as session:
                result = act(session)
        except AppError as error:
            reason = error.detail
            sent = replace(form, error=reason) if form else SentModel(refused=reason)
            return self.show(request, state, sent, error.status)
        if isinstance(result, Path):
            delete_model_files(result)
        return RedirectResponse(self.kind.address, status_code=303)

    def add_routes(self, router: Router) -> None:
        """Register the routes that list, add and remove models and cancel a download."""
        kind = self.kind

        @router.get(kind.address, Action.LOOK)
        def index(request: Request, state: State) -> Response:
            """List all models of the kind."""
            return self.show(request, state, SentModel(), 200)

        @router.post(kind.address, Action.ADMIN)
        def add(request: Request, state: State, form: SentForm) -> Response:
            """Add a model by path or name; an unusable one is answered with the reason."""
            source, precision = (
                str(form.get(name, "")).strip() for name in ("source", "precision")
            )
            chosen = precision if precision in PRECISIONS else None
            return self.carry_out(
                request,
                state,
                lambda session: service.add(
                    session,
                    kind,
                    source,
                    state.settings,
                    precision=chosen,
                    size_only="size_only" in form,
                ),
                SentModel(source, precision),
            )

        @router.post(f"{kind.address}/{{model_id}}/cancel", Action.ADMIN)
        def cancel(request: Request, model_id: Id, state: State) -> Response:
            """Cancel a download."""
            return self.carry_out(
                request, state, lambda session: service.cancel(session, kind, model_id)
            )

        @router.post(f"{kind.address}/{{model_id}}/remove", Action.ADMIN)
        def remove(request: Request, model_id: Id, state: State) -> Response:
            """Remove a model from the list, with the files that are only here for it."""
            return self.carry_out(
                request, state, lambda session: self.remove(session, model_id, state.settings)
            )
