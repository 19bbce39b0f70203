"""Dependencies for the removal that a request asks for, shared by the API and the pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import Path, Query

from app.registry.blobs.deletion import Deletion
from app.registry.datasets.service import dataset_by_slug
from app.registry.db import MAX_ID, utcnow
from app.registry.deletion import adapters, datasets, renders, runs, versions
from app.web.state import AdapterId, DatasetId, Id, RecipeId, State

MAX_DAYS = 36_500
Removal = partial[Deletion]
Step = Annotated[int, Path(ge=0, le=MAX_ID)]
Reference = Annotated[str, Path(max_length=60)]
WithRuns = Annotated[
    bool, Query(description="Also delete the runs that were trained on it, which keep its images.")
]
OlderThan = Annotated[
    int,
    Query(
        ge=0,
        le=MAX_DAYS,
        description="Only what ended this many days ago or earlier; 0: all.",
    ),
]
KeepCovers = Annotated[bool, Query(description="Keep renders with the cover of an adapter.")]


def _time_before(days: int) -> datetime | None:
    return utcnow() - timedelta(days=days) if days else None


def of_run(run_id: Id) -> Removal:
    """Removal of a deleted run."""
    return partial(runs.delete_deleted_run, run_id=run_id)


def of_deleted_runs() -> Removal:
    """Removal of all deleted runs."""
    return partial(runs.delete_deleted_runs)


def of_checkpoints(run_id: Id) -> Removal:
    """Removal of the checkpoints of a run."""
    return partial(runs.delete_checkpoints, run_id=run_id)


def of_checkpoint(run_id: Id, step: Step) -> Removal:
    """Removal of a deleted checkpoint of a run."""
    return partial(runs.delete_deleted_checkpoint, run_id=run_id, step=step)


def of_all_checkpoints(older_than_days: OlderThan) -> Removal:
    """Removal of the training states of all runs that have ended."""
    return partial(runs.delete_all_checkpoints, before=_time_before(older_than_days))


def of_render(render_id: Id) -> Removal:
    """Removal of a render."""
    return partial(renders.delete_render, render_id=render_id)


def of_deleted_render(render_id: Id) -> Removal:
    """Removal of a deleted render."""
    return partial(renders.delete_render, render_id=render_id, only_deleted=True)


def of_preset(preset_id: Id) -> Removal:
    """Removal of a deleted preset of one's own."""
    return partial(runs.delete_preset, preset_id=preset_id)


def of_grid(grid_id: Id) -> Removal:
    """Removal of a deleted grid."""
    return partial(renders.delete_grid, grid_id=grid_id)


def of_recipe(recipe_id: RecipeId) -> Removal:
    """Removal of a deleted recipe."""
    return partial(renders.delete_recipe, recipe_id=recipe_id)


def of_renders(older_than_days: OlderThan, keep_covers: KeepCovers = True) -> Removal:
    """Removal of the renders that have ended."""
    before = _time_before(older_than_days)
    return partial(renders.delete_ended_renders, before=before, keep_covers=keep_covers)


def of_deleted_renders() -> Removal:
    """Removal of the deleted images of the playground."""
    return partial(renders.delete_deleted_renders)


def of_adapter(adapter_id: AdapterId) -> Removal:
    """Removal of a deleted adapter."""
    return partial(adapters.delete_forever, adapter_id=adapter_id)


def of_version(adapter_id: AdapterId, version: Reference) -> Removal:
    """Removal of a deleted version of an adapter."""
    return partial(versions.delete_version, adapter_id=adapter_id, version=version)


def of_dataset(dataset_id: DatasetId, with_runs: WithRuns = False) -> Removal:
    """Removal of a deleted dataset."""
    return partial(datasets.delete_dataset, dataset_id=dataset_id, with_runs=with_runs)


def of_dataset_alone(dataset_id: DatasetId) -> Removal:
    """Removal of a deleted dataset; the runs on it stay."""
    return of_dataset(dataset_id)


def of_image_alone(image_id: Id) -> Removal:
    """Removal of a deleted image; the runs on it stay."""
    return of_image(image_id)


def of_image(image_id: Id, with_runs: WithRuns = False) -> Removal:
    """Removal of a deleted image."""
    return partial(datasets.delete_image, image_id=image_id, with_runs=with_runs)


def of_images(slug: str, state: State, with_runs: WithRuns = False) -> Removal:
    """Removal of the deleted images of the dataset with this slug. Raises NotFound."""
    with state.database.read() as session:
        key = dataset_by_slug(session, slug).key
    return partial(datasets.delete_deleted_images, dataset_id=key, with_runs=with_runs)


def of_all_images() -> Removal:
    """Removal of the deleted images of all datasets."""
    return partial(datasets.delete_all_deleted_images)
