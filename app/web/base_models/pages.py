"""The page of base models: the list, and a form to add one by path or from the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.base_models import downloads, precisions, service
from app.registry.base_models.subjects import has_subject_list, subjects_of
from app.registry.deletion import base_models as removal
from app.registry.errors import AppError, NotFound
from app.registry.hub_source import is_allowed
from app.registry.model_sources import allowed_folders, delete_model_files
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import EMBEDDED, BaseModel, BasePrecision
from app.web.forms import SentForm
from app.web.state import Id, State
from app.web.templates import render
from worker.core.starter.subjects import KnownSubject

router = APIRouter(include_in_schema=False)

Words = Annotated[str, Query(max_length=200)]
GROUP_TITLES = {
    "animals-nature": "Animals and plants",
    "food-drink": "Food and drink",
    "travel-places": "Places, vehicles and sky",
    "activities": "Activities and festivals",
    "objects": "Objects",
}
PRECISIONS = (
    ("fp16", "fp16: half the download size"),
    ("fp32", "fp32: full precision if available"),
)


@dataclass(frozen=True)
class BaseModelsPage:
    """All base models, retired ones last, the effects of removing each, and the form to add one.

    `refused`: why a base model was not removed. `image_precisions`: by base model, the precisions
    in which the render workers generate images.
    """

    bases: list[downloads.BaseWithDownload]
    removals: dict[int, removal.Removal]
    image_precisions: dict[int, list[BasePrecision]]
    embedded: str
    is_checking: bool
    can_add: bool
    hub: bool
    precisions: tuple[tuple[str, str], ...]
    precision: str
    source: str
    error: str
    refused: str


@dataclass(frozen=True)
class SubjectGroup:
    """The found subjects of one group."""

    title: str
    subjects: list[KnownSubject]


@dataclass(frozen=True)
class SubjectsPage:
    """All subjects that a base model knows by name, or those that match a search."""

    base: BaseModel
    words: str
    total: int
    found: int
    groups: list[SubjectGroup]


@router.get("/base-models")
def index(request: Request, state: State) -> Response:
    """List all base models."""
    return render(request, "base_models/index.html", _base_models_page(state))


@router.post("/base-models")
def add(request: Request, state: State, sent: SentForm) -> Response:
    """Add a base model by path or name; an unusable one is answered with the reason."""
    source = str(sent.get("source", "")).strip()
    precision = str(sent.get("precision", ""))
    requested = precision if precision in dict(PRECISIONS) else None
    try:
        with state.database.write() as session:
            downloads.add(session, source, state.settings, precision=requested)
    except AppError as error:
        context = _base_models_page(state, source=source, precision=precision, error=error)
        return render(request, "base_models/index.html", context, status=error.status)
    return RedirectResponse("/base-models", status_code=303)


@router.get("/base-models/{base_id}/subjects")
def show_subjects(request: Request, base_id: Id, state: State, q: Words = "") -> Response:
    """List what a base model can draw, each with a link into the playground."""
    with state.database.read() as session:
        base = service.get_base_model(session, base_id)
    if not has_subject_list(base):
        raise NotFound(f"“{base.name}” brings no list of subjects. It can be prompted freely.")
    found = subjects_of(base, q)
    groups = [
        SubjectGroup(title, [subject for subject in found if subject.group == group])
        for group, title in GROUP_TITLES.items()
    ]
    context = SubjectsPage(
        base=base,
        words=q.strip(),
        total=len(subjects_of(base)),
        found=len(found),
        groups=[group for group in groups if group.subjects],
    )
    return render(request, "base_models/subjects.html", context)


@router.post("/base-models/{base_id}/cancel")
def cancel(base_id: Id, state: State) -> Response:
    """Cancel a download."""
    with state.database.write() as session:
        downloads.cancel(session, base_id)
    return RedirectResponse("/base-models", status_code=303)


@router.post("/base-models/{base_id}/remove")
def remove(request: Request, base_id: Id, state: State) -> Response:
    """Remove a base model from the list, with its downloaded or fused files."""
    try:
        with state.database.write() as session:
            place = removal.remove(session, base_id, state.settings)
    except AppError as error:
        context = _base_models_page(state, refused=error.detail)
        return render(request, "base_models/index.html", context, status=error.status)
    if place is not None:
        delete_model_files(place)
    return RedirectResponse("/base-models", status_code=303)


def _base_models_page(
    state: AppState,
    *,
    source: str = "",
    precision: str = PRECISIONS[0][0],
    error: AppError | None = None,
    refused: str = "",
) -> BaseModelsPage:
    with state.database.read() as session:
        here = service.list_base_models(session)
        shown = [*here, *removal.list_retired(session)]
        bases = downloads.with_downloads(session, shown)
        removals = removal.removal_effects(session, here, state.settings)
        image_precisions = {
            base.key: [choice for choice in precisions.present_choices(session, base) if choice]
            for base in shown
        }
    moving = (ModelStatus.CHECKING, ModelStatus.DOWNLOADING)
    hub = is_allowed(state.settings)
    return BaseModelsPage(
        bases=bases,
        removals=removals,
        image_precisions=image_precisions,
        embedded=EMBEDDED,
        is_checking=any(row.status in moving for row in bases),
        can_add=hub or allowed_folders(state.settings) != [],
        hub=hub,
        precisions=PRECISIONS,
        precision=precision,
        source=source,
        error=error.detail if error else "",
        refused=refused,
    )
