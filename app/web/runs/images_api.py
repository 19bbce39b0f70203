"""REST: the images and captions that a run was trained on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.registry.runs import service
from app.registry.runs.pinned_images import PinnedImage, PinnedSet, pinned_images
from app.web.rest.lists import Part
from app.web.state import Id, State

router = APIRouter()


@router.get("/runs/{run_id}/images")
def list_run_images(
    run_id: Id,
    state: State,
    part: Part,
    of: Annotated[PinnedSet, Query(description="Which images.")] = PinnedSet.TRAINING,
    dataset: Annotated[
        int, Query(ge=1, le=1_000, description="Which dataset of a run on several, from 1.")
    ] = 1,
) -> list[PinnedImage]:
    """List the images and captions that a run was trained on.

    They are those that its dataset had when the run was queued, in its order; their repeats include
    its own. A run on several datasets has a list for each.
    """
    with state.database.read() as session:
        run = service.get_run(session, run_id)
        found = pinned_images(session, run, of=of, place=dataset, page=None)
    return [image for _, image in part.of([*enumerate(found.items)], lambda item: item[0])]
