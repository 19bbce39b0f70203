"""Pages of what is deleted: restore it, or delete it for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.deletion.things import (
    DeletedKind,
    DeletedThing,
    count_things,
    list_images,
    list_things,
)
from app.registry.paging import Page, find_page
from app.registry.tables.datasets import Dataset
from app.web.deletion.nouns import FOREVER
from app.web.state import State
from app.web.templates import render

router = APIRouter(include_in_schema=False)

Number = Annotated[int, Query(ge=1, le=100_000)]
TITLES = {DeletedKind.VERSIONS: "versions and checkpoints"}
WITH_IMAGES = (DeletedKind.ADAPTERS, DeletedKind.GRIDS, DeletedKind.RECIPES)


@dataclass(frozen=True)
class DeletedTab:
    """A kind of deleted things, with their number."""

    kind: DeletedKind
    title: str
    count: int


@dataclass(frozen=True)
class DeletedPage:
    """Deleted things of a kind, or the deleted images of a dataset, the last deleted first.

    `all_forever`: the page that deletes all of them for good, if there is one.
    """

    title: str
    found: Page[DeletedThing]
    here: str
    with_images: bool
    all_forever: str
    tabs: Sequence[DeletedTab] = ()
    dataset: Dataset | None = None
    forever: str = FOREVER


@router.get("/storage/deleted")
def list_deleted(
    request: Request, state: State, kind: DeletedKind | None = None, page: Number = 1
) -> Response:
    """List what is deleted, by default of the first kind that there is.

    A page number past the end shows the last page.
    """
    with state.database.read() as session:
        counts = count_things(session)
        kind = kind or next((one for one, number in counts.items() if number), DeletedKind.RUNS)
        found = find_page(lambda number: list_things(session, kind, page=number), page)
    context = DeletedPage(
        title=TITLES.get(kind, kind),
        found=found,
        here=f"/storage/deleted?kind={kind}",
        tabs=[DeletedTab(one, TITLES.get(one, one), number) for one, number in counts.items()],
        all_forever=f"{FOREVER}/runs" if kind is DeletedKind.RUNS else "",
        with_images=kind in WITH_IMAGES,
    )
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
def list_dataset_images(request: Request, slug: str, state: State, page: Number = 1) -> Response:
    """List the deleted images of a dataset."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = find_page(lambda number: list_images(session, dataset, page=number), page)
    context = DeletedPage(
        title="images",
        found=found,
        here=f"/datasets/{slug}/deleted",
        dataset=dataset,
        all_forever=f"{FOREVER}/datasets/{slug}/images",
        with_images=True,
    )
    return render(request, "deletion/deleted.html", context)
