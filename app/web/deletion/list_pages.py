"""Pages of what is deleted: restore it, or delete it for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.deletion import datasets
from app.registry.deletion.things import DeletedKind, DeletedThing, list_things
from app.registry.paging import Page, find_page
from app.registry.tables.datasets import Dataset, Image
from app.web.deletion.api import FOREVER
from app.web.state import State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

Number = Annotated[int, Query(ge=1, le=100_000)]


@dataclass(frozen=True)
class DeletedPage:
    """The deleted things of a kind, the last deleted first."""

    kind: DeletedKind
    kinds: list[DeletedKind]
    found: Page[DeletedThing]
    forever: str


@dataclass(frozen=True)
class DeletedImagesPage:
    """The deleted images of a dataset."""

    dataset: Dataset
    images: list[Image]


@router.get("/storage/deleted")
def list_deleted(
    request: Request, state: State, kind: DeletedKind = DeletedKind.RUNS, page: Number = 1
) -> Response:
    """List what is deleted; a page number past the end shows the last page."""
    with state.database.read() as session:
        found = find_page(lambda number: list_things(session, kind, page=number), page)
    context = DeletedPage(kind, list(DeletedKind), found, FOREVER)
    return render(request, "deletion/deleted.html", context)


@router.get("/datasets/deleted")
def list_datasets(request: Request, state: State, page: Number = 1) -> Response:
    """List deleted datasets."""
    return list_deleted(request, state, DeletedKind.DATASETS, page)


@router.get("/adapters/deleted")
def list_adapters(request: Request, state: State, page: Number = 1) -> Response:
    """List deleted adapters."""
    return list_deleted(request, state, DeletedKind.ADAPTERS, page)


@router.get("/datasets/{slug}/deleted")
def list_images(request: Request, slug: str, state: State) -> Response:
    """List the deleted images of a dataset."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = datasets.list_deleted_images(session, dataset.key)
    return render(request, "deletion/images.html", DeletedImagesPage(dataset, found))
