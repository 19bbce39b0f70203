"""Pages of datasets: the list, and one dataset with its images and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service, uploads
from app.registry.datasets.models import Dataset, Image
from app.registry.datasets.service import DatasetSummary
from app.registry.db import MAX_ID, Session
from app.registry.errors import Conflict, NotFound
from app.web import templates
from app.web.datasets.forms import DatasetForm, name_from_file, read_dataset_form
from app.web.state import Id, State
from app.web.uploads import uploaded

router = APIRouter(include_in_schema=False)

Words = Annotated[str, Query(max_length=200)]
Deleted = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class DatasetsPage:
    """All datasets as cards, and the form for a new one."""

    datasets: list[DatasetSummary]
    q: str
    form: DatasetForm
    deleted: Dataset | None


@dataclass(frozen=True)
class CaptionConflict:
    """A caption that was changed elsewhere during an edit."""

    image_id: int
    mine: str
    theirs: str
    version: str


@dataclass(frozen=True)
class DatasetPage:
    """One dataset: its facts, the upload area and the visible images."""

    dataset: Dataset
    summary: DatasetSummary
    images: list[Image]
    show: str
    q: str
    form: DatasetForm
    outcome: uploads.UploadOutcome | None
    conflict: CaptionConflict | None
    deleted: Image | None


@dataclass(frozen=True)
class UploadFragment:
    """Result of an upload: new tiles, rejected files and updated counts."""

    dataset: Dataset
    summary: DatasetSummary
    outcome: uploads.UploadOutcome
    show: str


@dataclass(frozen=True)
class ImageFragment:
    """An image that was deleted or restored, with the updated counts."""

    dataset: Dataset
    summary: DatasetSummary
    image: Image
    show: str


@router.get("/datasets")
def index(request: Request, state: State, q: Words = "", deleted: Deleted = None) -> Response:
    """List all datasets, newest first."""
    return _index_page(request, state, q=q, deleted=deleted, form=DatasetForm())


def _index_page(
    request: Request, state: State, *, q: str, deleted: int | None, form: DatasetForm
) -> Response:
    with state.database.read() as session:
        context = DatasetsPage(
            datasets=service.list_datasets(session, q=q.strip()),
            q=q,
            form=form,
            deleted=service.deleted_dataset(session, deleted) if deleted else None,
        )
    status = 200 if form.is_valid else 422
    return templates.render(request, "datasets/list.html", context, status=status)


@router.post("/datasets")
def create(
    request: Request,
    state: State,
    name: Annotated[str, Form()] = "",
    trigger_word: Annotated[str, Form()] = "",
    files: Annotated[list[UploadFile] | None, File()] = None,
) -> Response:
    """Create a dataset from the form and its files."""
    chosen = _named_files(files)
    form = read_dataset_form(
        name or (name_from_file(chosen[0].filename) if chosen else ""), trigger_word
    )
    if not form.is_valid:
        return _index_page(request, state, q="", deleted=None, form=form)
    with state.database.write() as session:
        dataset = service.create_dataset(session, form.name, trigger_word=form.trigger_word)
    if chosen:
        return _receive_files(request, state, dataset, chosen)
    return _redirect_to(dataset)


@router.post("/datasets/restore")
def restore(state: State, id: Annotated[int, Form(ge=1, le=MAX_ID)]) -> Response:
    """Restore a deleted dataset."""
    with state.database.write() as session:
        return _redirect_to(service.restore_dataset(session, id))


@router.get("/datasets/{slug}")
def show(
    request: Request,
    state: State,
    slug: str,
    show: Words = "all",
    q: Words = "",
    deleted: Deleted = None,
) -> Response:
    """Show one dataset with its images."""
    return _dataset_page(request, state, slug, show=show, q=q, deleted=deleted)


def _dataset_page(
    request: Request,
    state: State,
    slug: str,
    *,
    show: str = "all",
    q: str = "",
    deleted: int | None = None,
    form: DatasetForm | None = None,
    status: int = 200,
    **more: Any,
) -> Response:
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        context = DatasetPage(
            dataset=dataset,
            summary=service.summary(session, dataset),
            images=service.list_images(session, dataset.key, show=show, q=q.strip()),
            show="uncaptioned" if show == "uncaptioned" else "all",
            q=q,
            form=form or DatasetForm(dataset.name, dataset.trigger_word or ""),
            outcome=more.get("outcome"),
            conflict=more.get("conflict"),
            deleted=service.deleted_image(session, dataset.key, deleted) if deleted else None,
        )
    return templates.render(request, "datasets/show.html", context, status=status)


@router.post("/datasets/{slug}")
def change(
    request: Request,
    state: State,
    slug: str,
    name: Annotated[str, Form()] = "",
    trigger_word: Annotated[str, Form()] = "",
) -> Response:
    """Change the name or the trigger word of a dataset."""
    form = read_dataset_form(name, trigger_word)
    if not form.is_valid:
        return _dataset_page(request, state, slug, form=form, status=422)
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        service.change_dataset(session, dataset.key, name=form.name, trigger_word=form.trigger_word)
    return _redirect_to(dataset)


@router.post("/datasets/{slug}/delete")
def delete(state: State, slug: str) -> Response:
    """Delete a dataset; the list then offers to undo it."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        service.delete_dataset(session, dataset.key)
    return RedirectResponse(f"/datasets?deleted={dataset.key}", status_code=303)


@router.post("/datasets/{slug}/images")
def upload(
    request: Request,
    state: State,
    slug: str,
    files: Annotated[list[UploadFile] | None, File()] = None,
) -> Response:
    """Add images, captions and archives to a dataset."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
    return _receive_files(request, state, dataset, _named_files(files))


def _named_files(files: list[UploadFile] | None) -> list[UploadFile]:
    """The files with a name: browsers send an unnamed file for an empty field."""
    return [file for file in files or [] if file.filename]


def _receive_files(
    request: Request, state: State, dataset: Dataset, files: list[UploadFile]
) -> Response:
    outcome = uploads.receive(state, dataset.key, [uploaded(file) for file in files])
    if templates.wants_fragment(request):
        with state.database.read() as session:
            summary = service.summary(session, dataset)
        context = UploadFragment(dataset, summary, outcome, show="all")
        return templates.render_fragment("datasets/_uploaded.html", context)
    if not outcome.rejected:
        return _redirect_to(dataset)
    status = 200 if outcome.accepted or outcome.captioned else 422
    return _dataset_page(request, state, dataset.slug, outcome=outcome, status=status)


@router.post("/datasets/{slug}/images/{image_id}/caption")
def caption(
    request: Request,
    state: State,
    slug: str,
    image_id: Id,
    caption: Annotated[str, Form()] = "",
    version: Annotated[int | None, Form(ge=0, le=MAX_ID)] = None,
) -> Response:
    """Save a caption, unless it was changed elsewhere since `version`."""
    try:
        with state.database.write() as session:
            dataset, image = _image_of(session, slug, image_id)
            image = service.caption_image(session, image.key, caption, seen_version=version)
            summary = service.summary(session, dataset)
    except Conflict as conflict:
        if not templates.wants_page(request):
            raise
        theirs, newer = conflict.fields["caption"], conflict.fields["caption_version"]
        shown = CaptionConflict(image_id, caption, theirs, newer)
        return _dataset_page(request, state, slug, conflict=shown, status=409)
    if templates.wants_page(request):
        return _redirect_to(dataset, f"#image-{image_id}")
    return JSONResponse(
        {
            "caption": image.caption,
            "version": image.caption_version,
            "uncaptioned": summary.image_count - summary.captioned_count,
        }
    )


@router.post("/datasets/{slug}/images/{image_id}/rules")
def change_rules(
    request: Request,
    state: State,
    slug: str,
    image_id: Id,
    repeats: Annotated[str, Form()] = "",
    never_flip: Annotated[str, Form()] = "",
) -> Response:
    """Save the training rules of an image: repeats and horizontal flip."""
    number = int(repeats) if repeats.isascii() and repeats.isdigit() else 0
    with state.database.write() as session:
        dataset, image = _image_of(session, slug, image_id)
        image = service.change_image(
            session, image.key, repeats=number, never_flip=bool(never_flip)
        )
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = ImageFragment(dataset, summary, image, show="all")
        return templates.render_fragment("datasets/_rules.html", context)
    return _redirect_to(dataset, f"#image-{image_id}")


@router.post("/datasets/{slug}/images/{image_id}/delete")
def delete_image(request: Request, state: State, slug: str, image_id: Id) -> Response:
    """Delete an image of a dataset; a message then offers to undo it."""
    with state.database.write() as session:
        dataset, image = _image_of(session, slug, image_id)
        service.delete_image(session, image.key)
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = ImageFragment(dataset, summary, image, show="all")
        return templates.render_fragment("datasets/_image_deleted.html", context)
    return _redirect_to(dataset, f"?deleted={image_id}")


@router.post("/datasets/{slug}/images/{image_id}/restore")
def restore_image(request: Request, state: State, slug: str, image_id: Id) -> Response:
    """Restore a deleted image."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        image = service.deleted_image(session, dataset.key, image_id)
        if image is not None:
            service.restore_image(session, image_id)
        dataset, image = _image_of(session, slug, image_id)
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = ImageFragment(dataset, summary, image, show="all")
        return templates.render_fragment("datasets/_image_restored.html", context)
    return _redirect_to(dataset, f"#image-{image_id}")


def _image_of(session: Session, slug: str, image_id: int) -> tuple[Dataset, Image]:
    dataset = service.dataset_by_slug(session, slug)
    image = service.get_image(session, image_id)
    if image.dataset_id != dataset.key:
        raise NotFound("This dataset has no such image.")
    return dataset, image


def _redirect_to(dataset: Dataset, more: str = "") -> RedirectResponse:
    return RedirectResponse(f"/datasets/{dataset.slug}{more}", status_code=303)
