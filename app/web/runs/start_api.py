"""REST: starts runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NoReturn

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.registry.base_models.service import BaseReference
from app.registry.errors import InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.runs import requests, service
from app.registry.runs.several_datasets import MAX_DATASETS, DatasetWish, place_of_field
from app.registry.slugs import Number, Reference, RowId
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH, Dataset
from app.registry.validation import Name, named_reasons
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.state import State, find_id
from worker.core.old_names import accept_old_names
from worker.core.training.presets import Preset

router = APIRouter()


class ContinuesIn(BaseModel):
    """A checkpoint of an earlier run; without a step, its newest."""

    model_config = ConfigDict(extra="forbid")
    run_id: RowId = Field(description="The earlier run.")
    step: Number | None = Field(None, description="Step of the checkpoint; absent: its newest.")


class RunDatasetIn(BaseModel):
    """A dataset to train on."""

    model_config = ConfigDict(extra="forbid")
    dataset_id: Reference = Field(description="Id or slug of the dataset.")
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = Field(
        1, description="How often an epoch uses its images."
    )


class RunIn(BaseModel):
    """A run to queue; `config` holds only the values that differ from the preset.

    Name the images as `dataset_id`, or as `datasets` to train on several.
    """

    model_config = example(dataset_id=1, preset="quick", config={"steps": 600})
    dataset_id: Reference | None = Field(
        None, description="The images to train on: id or slug of their dataset."
    )
    datasets: list[RunDatasetIn] | None = Field(
        None,
        min_length=1,
        max_length=MAX_DATASETS,
        description="Instead of `dataset_id`; the first one gives name and trigger word.",
    )
    trigger_word: str | None = Field(
        None,
        max_length=TRIGGER_LENGTH,
        description="Word that calls the style; absent: that of the first dataset, empty: none.",
    )
    base_model: BaseReference | None = Field(
        None, description="Id or slug; absent: the embedded one."
    )
    preset: Preset | RowId = Field(
        Preset.BALANCED,
        description="Settings not in `config`: a shipped preset, or the id of your own.",
    )
    name: Name | None = Field(None, description="Name of the adapter; absent: that of the dataset.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Settings that differ from the preset."
    )
    prompt_set: Reference | None = Field(
        None, description="Id or slug of a prompt set: its first 8 subjects are the sample prompts."
    )
    regularization_dataset_id: Reference | None = Field(
        None, description="Images that keep the base from forgetting: id or slug of their dataset."
    )
    adapter_id: Reference | None = Field(
        None, description="It becomes the next version of this adapter: its id or slug."
    )
    continues: ContinuesIn | None = Field(
        None, description="A checkpoint to go on from; `steps` then counts from its beginning."
    )

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)


class RunCreated(BaseModel):
    """The run that was queued."""

    address: ClassVar[str] = "/api/v1/runs/{id}"
    id: int = Field(description="Id of the run: poll `/runs/{id}`.")
    status: JobStatus = Field(description="`queued`.")
    warnings: list[str] = Field(
        default_factory=list, description="Settings that may not be intended."
    )


@router.post(
    "/runs",
    status_code=202,
    responses=problems(
        {
            404: "There is no such dataset, base model, adapter or run.",
            503: "The base model is still being downloaded or inspected.",
        }
    ),
)
def create_run(body: RunIn, state: State) -> RunCreated:
    """Queue a training run.

    The answer comes at once; a train worker starts the run when it is free.
    """
    first, *further = _wishes(state, body)
    request = requests.RunRequest(
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
        continues=(
            requests.StartCheckpoint(body.continues.run_id, body.continues.step)
            if body.continues
            else None
        ),
    )
    try:
        with state.database.write() as session:
            run = requests.create_run(session, request)
            warnings = service.run_warnings(session, run)
    except InvalidInput as error:
        if body.datasets is None:
            raise
        fields = {_sent_name(name): reason for name, reason in error.fields.items()}
        raise InvalidInput(named_reasons(fields) or error.detail, fields=fields) from error
    return RunCreated(id=run.key, status=run.state, warnings=warnings)


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
