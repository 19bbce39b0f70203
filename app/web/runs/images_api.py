"""REST: the images and captions that a run was trained on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.registry.runs import service
from app.registry.runs.pinned_images import PinnedImage, PinnedSet, pinned_images
from app.web.answers import Answer
from app.web.state import Id, State

router = APIRouter()


class RunImagesOut(Answer):
    """A page of the images of a run."""

    dataset_id: int = Field(description="The dataset; it may have been deleted since.")
    dataset_name: str = Field(description="Name of the dataset.")
    repeats: int = Field(
        description="How often an epoch uses the dataset; the repeats of the images include it."
    )
    note: str = Field(description="What became of the dataset since; empty if nothing did.")
    total: int = Field(description="Images in all.")
    page: int = Field(description="Number of this page; the last one if you asked for more.")
    pages: int = Field(description="Number of pages.")
    images: list[PinnedImage] = Field(description="The images, in the order of the dataset.")


@router.get("/runs/{run_id}/images")
def list_run_images(
    run_id: Id,
    state: State,
    of: Annotated[PinnedSet, Query(description="Which images.")] = PinnedSet.TRAINING,
    dataset: Annotated[
        int, Query(ge=1, le=1_000, description="Which dataset of a run on several, from 1.")
    ] = 1,
    page: Annotated[int, Query(ge=1, le=10_000, description="Number of the page.")] = 1,
) -> RunImagesOut:
    """List the images and captions that a run was trained on, 60 a page.

    They are those that its dataset had when the run was queued. A run on several datasets has a
    list for each.
    """
    with state.database.read() as session:
        run = service.get_run(session, run_id)
        found = pinned_images(session, run, of=of, place=dataset, page=page)
    of_dataset = found.dataset
    return RunImagesOut.of(
        found,
        dataset_id=of_dataset.key,
        dataset_name=of_dataset.name,
        page=found.number,
        images=found.items,
    )
