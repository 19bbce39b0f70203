"""Pages of deleted datasets and images: restore them, or delete them for good."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.blobs import deletion as freeing
from app.registry.blobs.deletion import Removal
from app.registry.datasets import service
from app.registry.deletion import datasets as deletion
from app.registry.deletion.datasets import DeletedDatasets
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.registry.wording import size_text
from app.web.deletion import confirm
from app.web.deletion.confirm import Alternative
from app.web.deletion.removals import OfDataset, WithRuns
from app.web.state import Id, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

LIST = "/datasets/deleted"
Page = Annotated[int, Query(ge=1, le=100_000)]


@dataclass(frozen=True)
class DeletedDatasetsPage:
    """Deleted datasets, the last deleted first."""

    found: DeletedDatasets
    page: int


@dataclass(frozen=True)
class DeletedImagesPage:
    """The deleted images of a dataset."""

    dataset: Dataset
    images: list[Image]


@router.get(LIST)
def index(request: Request, state: State, page: Page = 1) -> Response:
    """List deleted datasets; a page number past the end shows the last page."""
    with state.database.read() as session:
        found = deletion.list_deleted(session, page=page)
        if page > found.pages:
            page = found.pages
            found = deletion.list_deleted(session, page=page)
    return render(request, "deletion/datasets.html", DeletedDatasetsPage(found, page))


@router.get("/datasets/deleted/{dataset_id}/delete")
def ask_dataset(
    request: Request, dataset_id: Id, removal: OfDataset, state: State, with_runs: WithRuns = False
) -> Response:
    """Ask before a deleted dataset is deleted for good."""
    other = partial(deletion.delete_dataset, dataset_id=dataset_id, with_runs=not with_runs)
    return _ask(request, state, removal, other, with_runs=with_runs, back=LIST)


@router.post("/datasets/deleted/{dataset_id}/delete")
def delete_dataset(removal: OfDataset, state: State) -> Response:
    """Delete a deleted dataset for good."""
    return confirm.delete(state, removal, to=LIST)


@router.get("/datasets/{slug}/deleted")
def images(request: Request, slug: str, state: State) -> Response:
    """List the deleted images of a dataset."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = deletion.list_deleted_images(session, dataset.key)
    return render(request, "deletion/images.html", DeletedImagesPage(dataset, found))


@router.get("/datasets/{slug}/deleted/delete")
def ask_images(request: Request, slug: str, state: State, with_runs: WithRuns = False) -> Response:
    """Ask before all deleted images of a dataset are deleted for good."""
    removal, other = (
        _images(state, slug, with_runs=chosen) for chosen in (with_runs, not with_runs)
    )
    back = f"/datasets/{slug}/deleted"
    return _ask(request, state, removal, other, with_runs=with_runs, back=back)


@router.post("/datasets/{slug}/deleted/delete")
def delete_images(slug: str, state: State, with_runs: WithRuns = False) -> Response:
    """Delete all deleted images of a dataset for good."""
    removal = _images(state, slug, with_runs=with_runs)
    return confirm.delete(state, removal, to=f"/datasets/{slug}")


@router.get("/datasets/{slug}/deleted/{image_id}/delete")
def ask_image(
    request: Request, slug: str, image_id: Id, state: State, with_runs: WithRuns = False
) -> Response:
    """Ask before a deleted image is deleted for good."""
    removal, other = (
        partial(deletion.delete_image, image_id=image_id, with_runs=chosen)
        for chosen in (with_runs, not with_runs)
    )
    back = f"/datasets/{slug}/deleted"
    return _ask(request, state, removal, other, with_runs=with_runs, back=back)


@router.post("/datasets/{slug}/deleted/{image_id}/delete")
def delete_image(slug: str, image_id: Id, state: State, with_runs: WithRuns = False) -> Response:
    """Delete a deleted image for good."""
    removal = partial(deletion.delete_image, image_id=image_id, with_runs=with_runs)
    return confirm.delete(state, removal, to=f"/datasets/{slug}/deleted")


def _images(state: AppState, slug: str, *, with_runs: bool) -> Removal:
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
    return partial(deletion.delete_deleted_images, dataset_id=dataset.key, with_runs=with_runs)


def _ask(
    request: Request,
    state: AppState,
    removal: Removal,
    other: Removal,
    *,
    with_runs: bool,
    back: str,
) -> Response:
    """Ask, with a link to the same deletion with or without the runs, if that differs."""
    alternative = None
    if with_runs:
        alternative = Alternative(request.url.path, "Keep the runs, with the images they need")
    elif (more := _bytes_with_runs(state, removal, other)) is not None:
        words = f"Delete these runs too, which frees {size_text(more)} in all"
        alternative = Alternative(f"{request.url.path}?with_runs=true", words)
    return confirm.ask(request, state, removal, back=back, alternative=alternative)


def _bytes_with_runs(state: AppState, removal: Removal, other: Removal) -> int | None:
    """The space that is freed with the runs; None if there are none, or one has not ended."""
    try:
        alone, together = (freeing.preview(state, one) for one in (removal, other))
    except Conflict:
        return None
    return None if alone == together else together.size_bytes
