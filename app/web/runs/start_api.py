"""REST: starts runs, measures before what they take, and shows what they were started with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, ClassVar, NoReturn

from fastapi import Query
from pydantic import ConfigDict, Field, model_validator

from app.registry.base_models.service import BaseReference
from app.registry.datasets.used_datasets import regularization_dataset, used_datasets
from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.job_kinds.kinds import DryRunResult
from app.registry.job_kinds.states import JobStatus
from app.registry.runs import dry_runs, requests, service
from app.registry.runs.pinned_images import PinnedImage, PinnedSet, pinned_images
from app.registry.runs.presets import shipped_preset
from app.registry.runs.requests import StartCheckpoint
from app.registry.runs.settings import Setting, run_settings
from app.registry.runs.several_datasets import MAX_DATASETS, DatasetWish, place_of_field
from app.registry.slugs import Reference, RowId
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH, Dataset
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from app.registry.validation import Name, named_reasons
from app.web.access.needs import Action, Router
from app.web.answers import JobAnswer
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, State, Writing, find_id
from worker.core.documented import DocumentedModel
from worker.core.old_names import accept_old_names
from worker.core.training.presets import Preset

router = Router()

NOT_THERE = problems(
    {
        404: "There is no such dataset, base model, adapter or run.",
        503: "The base model is still being downloaded or inspected.",
    }
)


class RunDatasetIn(DocumentedModel):
    """A dataset to train on."""

    model_config = ConfigDict(extra="forbid")
    dataset_id: Reference = Field(description="Id or slug of the dataset.")
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = 1
    """How often an epoch uses its images."""


class RunIn(DocumentedModel):
    """A run to queue; `config` holds only the values that differ from the preset.

    Name the images as `dataset_id`, or as `datasets` to train on several.
    """

    model_config = example(dataset_id=1, preset="quick", config={"steps": 600})
    dataset_id: Reference | None = None
    """The images to train on: id or slug of their dataset."""
    datasets: list[RunDatasetIn] | None = Field(None, min_length=1, max_length=MAX_DATASETS)
    """Instead of `dataset_id`; the first one gives name and trigger word."""
    trigger_word: str | None = Field(None, max_length=TRIGGER_LENGTH)
    """Word that calls the style; absent: that of the first dataset, empty: none."""
    base_model: BaseReference | None = None
    """Id or slug; absent: the embedded one."""
    preset: Preset | RowId = Preset.BALANCED
    """Settings not in `config`: a shipped preset, or the id of your own."""
    name: Name | None = Field(None, description="Name of the adapter; absent: that of the dataset.")
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the preset."""
    prompt_set: Reference | None = None
    """Id or slug of a prompt set: its first 8 subjects are the sample prompts."""
    regularization_dataset_id: Reference | None = None
    """Images that keep the base from forgetting: id or slug of their dataset."""
    adapter_id: Reference | None = None
    """It becomes the next version of this adapter: its id or slug."""
    continues: StartCheckpoint | None = None
    """A checkpoint to go on from; `steps` then counts from its beginning."""

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)


class RunCreated(DocumentedModel):
    """The run that was queued."""

    address: ClassVar[str] = "/api/v1/runs/{id}"
    id: int = Field(description="Id of the run: poll `/runs/{id}`.")
    status: JobStatus = Field(description="`queued`.")
    warnings: list[str] = Field(default_factory=list)
    """Settings that may not be intended."""


class DryRunOut(JobAnswer):
    """A dry run."""

    address: ClassVar[str] = "/api/v1/dry-runs/{id}"
    status: JobStatus = Field(description="`queued` while a run trains or waits.")
    finished_at: datetime | None = Field(description="When it ended.")
    measured: DryRunResult = Field(description="What it measured.")


@router.post("/runs", Action.TRAIN, status_code=202, responses=NOT_THERE)
def create_run(body: RunIn, state: State, session: Writing) -> RunCreated:
    """Queue a training run.

    The answer comes at once; a train worker starts the run when it is free.
    """
    request = run_request(state, body)
    with _as_sent(body):
        run = requests.create_run(session, request)
        warnings = service.run_warnings(session, run)
    return RunCreated(id=run.key, status=run.state, warnings=warnings)


@router.post("/dry-runs", Action.TRAIN, status_code=202, responses=NOT_THERE)
def create_dry_run(body: RunIn, state: State, session: Writing) -> DryRunOut:
    """Measure what a training takes, by its first steps and one sample.

    A train worker does it while no run trains or waits. If one with these settings has not ended,
    it is the answer.
    """
    request = run_request(state, body)
    with _as_sent(body):
        return _dry_run_out(dry_runs.order_dry_run(session, request))


@router.get("/dry-runs/{job_id}", Action.LOOK)
def get_dry_run(job_id: Id, session: Reading) -> DryRunOut:
    """Get a dry run with what it measured."""
    return _dry_run_out(dry_runs.get_dry_run(session, job_id))


@router.post("/dry-runs/{job_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_dry_run(job_id: Id, session: Writing) -> DryRunOut:
    """Cancel a dry run."""
    return _dry_run_out(dry_runs.cancel_dry_run(session, job_id))


def _dry_run_out(job: IoJob) -> DryRunOut:
    return DryRunOut.of(job, measured=job.outcome(DryRunResult))


def run_request(state: AppState, body: RunIn) -> requests.RunRequest:
    """The request for the service. Raises InvalidInput and NotFound."""
    first, *further = _wishes(state, body)
    return requests.RunRequest(
        dataset_id=first.dataset_id,
        repeats=first.repeats,
        further=further,
        trigger_word=body.trigger_word,
        base_model=body.base_model,
        preset=body.preset if isinstance(body.preset, Preset) else Preset.BALANCED,
        own_preset_id=body.preset if isinstance(body.preset, int) else None,
        name=body.name,
        config=body.config,
        prompt_set=body.prompt_set,
        regularization_dataset_id=find_id(state, Dataset, body.regularization_dataset_id),
        adapter_id=find_id(state, Adapter, body.adapter_id),
        continues=body.continues,
    )


@contextmanager
def _as_sent(body: RunIn) -> Iterator[None]:
    """Name invalid fields as they were sent."""
    try:
        yield
    except InvalidInput as error:
        if body.datasets is None:
            raise
        fields = {_sent_name(name): reason for name, reason in error.fields.items()}
        raise InvalidInput(named_reasons(fields) or error.detail, fields=fields) from error


def _wishes(state: AppState, body: RunIn) -> list[DatasetWish]:
    """The datasets that are asked for, at least one. Raises InvalidInput."""
    if body.datasets is None:
        if body.dataset_id is None:
            _refuse("dataset_id", "This is required, or datasets instead.")
        return [DatasetWish(find_id(state, Dataset, body.dataset_id) or 0)]
    if body.dataset_id is not None:
        _refuse("dataset_id", "Send dataset_id or datasets, not both.")
    return [
        DatasetWish(find_id(state, Dataset, one.dataset_id) or 0, one.repeats)
        for one in body.datasets
    ]


def _refuse(field: str, sentence: str) -> NoReturn:
    raise InvalidInput(f"{field}: {sentence}", fields={field: sentence})


def _sent_name(field: str) -> str:
    """The place in `datasets` that a field of the form stands for."""
    placed = place_of_field(field)
    if placed is None:
        return field
    place, is_repeats = placed
    return f"datasets.{place - 1}.{'repeats' if is_repeats else 'dataset_id'}"


class RunSettingsOut(DocumentedModel):
    """The settings of a run, compared with its preset."""

    request: RunIn
    """What `POST /runs` takes for the same training, on what the datasets have now."""
    settings: list[Setting] = Field(description="Each setting with the value of the preset.")


@router.get("/runs/{run_id}/settings", Action.LOOK)
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
        preset=shipped_preset(run.preset),
        name=run.name,
        config=run.config,
        regularization_dataset_id=regularization_dataset(session, run),
        adapter_id=run.adapter_id,
        continues=StartCheckpoint(run.parent_id) if run.parent_id else None,
    )


@router.get("/runs/{run_id}/images", Action.LOOK)
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
