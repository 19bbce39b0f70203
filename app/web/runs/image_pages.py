"""The page of the images and captions that a run was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.datasets.used_datasets import UsedDataset, used_datasets
from app.registry.runs import service
from app.registry.runs.pinned_images import PinnedImages, PinnedSet, pinned_images
from app.registry.tables.runs import Run
from app.web.state import Id, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class RunImagesPage:
    """A page of the images that a run was trained on."""

    run: Run
    shown: PinnedSet
    found: PinnedImages
    datasets: list[UsedDataset]


@router.get("/runs/{run_id}/images")
def run_images(
    request: Request,
    run_id: Id,
    state: State,
    of: PinnedSet = PinnedSet.TRAINING,
    dataset: Annotated[int, Query(ge=1, le=1_000)] = 1,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """Show the images and captions of a run, also when its dataset changed or was deleted."""
    with state.database.read() as session:
        run = service.get_run(session, run_id)
        found = pinned_images(session, run, of=of, place=dataset, page=page)
        context = RunImagesPage(run, of, found, used_datasets(session, run))
    return render(request, "runs/images.html", context)
