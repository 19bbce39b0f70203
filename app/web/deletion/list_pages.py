"""Pages of deleted datasets, images and adapters: restore them, or delete them for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.deletion import adapters, datasets
from app.registry.deletion.adapters import DeletedAdapter
from app.registry.deletion.datasets import DeletedDataset
from app.registry.paging import Page, find_page
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.web.state import State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

Found = Page[DeletedDataset] | Page[DeletedAdapter]
Number = Annotated[int, Query(ge=1, le=100_000)]


@dataclass(frozen=True)
class DeletedListPage:
    """Deleted datasets or adapters, the last deleted first."""

    found: Found


@dataclass(frozen=True)
class DeletedImagesPage:
    """The deleted images of a dataset."""

    dataset: Dataset
    images: list[Image]


@router.get("/datasets/deleted")
def list_datasets(request: Request, state: State, page: Number = 1) -> Response:
    """List deleted datasets; a page number past the end shows the last page."""
    return render(request, "deletion/datasets.html", _deleted(state, datasets.list_deleted, page))


@router.get("/adapters/deleted")
def list_adapters(request: Request, state: State, page: Number = 1) -> Response:
    """List deleted adapters; a page number past the end shows the last page."""
    return render(request, "adapters/deleted.html", _deleted(state, adapters.list_deleted, page))


def _deleted(state: AppState, list_deleted: Callable[..., Found], page: int) -> DeletedListPage:
    with state.database.read() as session:
        found = find_page(lambda number: list_deleted(session, page=number), page)
    return DeletedListPage(found)


@router.get("/datasets/{slug}/deleted")
def list_images(request: Request, slug: str, state: State) -> Response:
    """List the deleted images of a dataset."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = datasets.list_deleted_images(session, dataset.key)
    return render(request, "deletion/images.html", DeletedImagesPage(dataset, found))
