"""REST: what a run was trained with: its settings, and its images with their captions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.registry.datasets.used_datasets import regularization_dataset, used_datasets
from app.registry.db import Session
from app.registry.runs import service
from app.registry.runs.pinned_images import PinnedImage, PinnedSet, pinned_images
from app.registry.runs.settings import Setting, run_settings
from app.registry.tables.runs import Run
from app.web.rest.lists import Part
from app.web.runs.start_api import ContinuesIn, RunDatasetIn, RunIn
from app.web.state import Id, Reading, SessionRoute
from worker.core.training.presets import Preset

router = APIRouter(route_class=SessionRoute)


class RunSettingsOut(BaseModel):
    """The settings of a run, compared with its preset."""

    request: RunIn = Field(
        description="What `POST /runs` takes for the same training, on what the datasets have now."
    )
    settings: list[Setting] = Field(description="Each setting with the value of the preset.")


@router.get("/runs/{run_id}/settings")
def get_run_settings(run_id: Id, session: Reading) -> RunSettingsOut:
    """Get all settings of a run, and which of them differ from its preset."""
    run = service.get_run(session, run_id)
    settings, request = run_settings(session, run), _request_of(session, run)
    return RunSettingsOut(settings=settings, request=request)


def _request_of(session: Session, run: Run) -> RunIn:
    return RunIn(
        datasets=[
            RunDatasetIn(dataset_id=one.id, repeats=one.repeats)
            for one in used_datasets(session, run)
        ],
        trigger_word=run.trigger_word or "",
        base_model=run.base_model_id,
        preset=Preset(run.preset) if run.preset in set(Preset) else Preset.BALANCED,
        name=run.name,
        config=run.config,
        regularization_dataset_id=regularization_dataset(session, run),
        adapter_id=run.adapter_id,
        continues=ContinuesIn(run_id=run.parent_id) if run.parent_id else None,
    )


@router.get("/runs/{run_id}/images")
def list_run_images(
    run_id: Id,
    session: Reading,
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
    run = service.get_run(session, run_id)
    found = pinned_images(session, run, of=of, place=dataset, page=None)
    return [image for _, image in part.of([*enumerate(found.items)], lambda item: item[0])]
