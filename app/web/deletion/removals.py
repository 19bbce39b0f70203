"""What a request asks to delete for good, as dependencies that the API and the pages share."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import Field

from app.registry.blobs.deletion import Removal
from app.registry.db import MAX_ID, utcnow
from app.registry.deletion import adapters, datasets, renders, runs, versions
from app.web.state import Id

MAX_DAYS = 36_500
Step = Annotated[int, Path(ge=0, le=MAX_ID)]
Reference = Annotated[str, Path(max_length=60)]
RunIds = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_ID)]], Query(max_length=200, description="The runs.")
]
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


def _run(run_id: Id) -> Removal:
    return partial(runs.delete_run, run_id=run_id)


def _runs(run: RunIds) -> Removal:
    return partial(runs.delete_runs, run_ids=run)


def _checkpoints(run_id: Id) -> Removal:
    return partial(runs.delete_checkpoints, run_id=run_id)


def _checkpoint(run_id: Id, step: Step) -> Removal:
    return partial(runs.delete_checkpoints, run_id=run_id, step=step)


def _all_checkpoints(older_than_days: OlderThan) -> Removal:
    return partial(runs.delete_all_checkpoints, before=_time_before(older_than_days))


def _render(render_id: Id) -> Removal:
    return partial(renders.delete_render, render_id=render_id)


def _renders(older_than_days: OlderThan, keep_covers: KeepCovers = True) -> Removal:
    return partial(
        renders.delete_ended_renders,
        before=_time_before(older_than_days),
        keep_covers=keep_covers,
    )


def _adapter(adapter_id: Id) -> Removal:
    return partial(adapters.delete_forever, adapter_id=adapter_id)


def _version(adapter_id: Id, version: Reference) -> Removal:
    return partial(versions.delete_version, adapter_id=adapter_id, reference=version)


def _dataset(dataset_id: Id, with_runs: WithRuns = False) -> Removal:
    return partial(datasets.delete_dataset, dataset_id=dataset_id, with_runs=with_runs)


def _image(image_id: Id, with_runs: WithRuns = False) -> Removal:
    return partial(datasets.delete_image, image_id=image_id, with_runs=with_runs)


OfRun = Annotated[Removal, Depends(_run)]
OfRuns = Annotated[Removal, Depends(_runs)]
OfCheckpoints = Annotated[Removal, Depends(_checkpoints)]
OfCheckpoint = Annotated[Removal, Depends(_checkpoint)]
OfAllCheckpoints = Annotated[Removal, Depends(_all_checkpoints)]
OfRender = Annotated[Removal, Depends(_render)]
OfRenders = Annotated[Removal, Depends(_renders)]
OfAdapter = Annotated[Removal, Depends(_adapter)]
OfVersion = Annotated[Removal, Depends(_version)]
OfDataset = Annotated[Removal, Depends(_dataset)]
OfImage = Annotated[Removal, Depends(_image)]
