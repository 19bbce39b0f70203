"""REST: runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.registry.adapters import service as adapters
from app.registry.db import MAX_ID, Session
from app.registry.runs import service
from app.registry.runs.models import Run
from app.web.problems import problems
from app.web.state import Id, State
from worker.core.old_names import accept_old_names
from worker.core.training.presets import Preset

router = APIRouter(tags=["runs"])
NOT_RUNNING = problems({409: "The run is not running."})


class ContinuesIn(BaseModel):
    """A checkpoint of an earlier run; without a step, its newest."""

    model_config = ConfigDict(extra="forbid")
    run_id: int = Field(ge=1, le=MAX_ID, description="The earlier run.")
    step: int | None = Field(None, ge=0, description="Step of the checkpoint; absent: its newest.")


class RunIn(BaseModel):
    """A run to queue; `config` holds only the values that differ from the preset."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"dataset_id": 1, "preset": "quick", "config": {"steps": 600}}]
        },
    )
    dataset_id: int = Field(ge=1, le=MAX_ID, description="The images to train on.")
    base_model: str | int | None = Field(None, description="Id or slug; absent: the embedded one.")
    preset: Preset = Field(Preset.BALANCED, description="Settings not in `config`.")
    name: str | None = Field(
        None, max_length=1_000, description="Name of the adapter; absent: that of the dataset."
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="Settings that differ from the preset."
    )
    regularization_dataset_id: int | None = Field(
        None, ge=1, le=MAX_ID, description="Images that keep the base from forgetting."
    )
    adapter_id: int | None = Field(
        None, ge=1, le=MAX_ID, description="It becomes the next version of this adapter."
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

    id: int = Field(description="Id of the run: poll `/runs/{id}`.")
    status: str = Field(description="`queued`.")
    warnings: list[str] = Field(
        default_factory=list, description="Settings that may not be intended."
    )


class RunOut(BaseModel):
    """A run."""

    id: int = Field(description="Id of the run.")
    name: str = Field(description="Name of its adapter.")
    status: str = Field(
        description="queued, paused, running, succeeded, failed or canceled.", examples=["running"]
    )
    phase: str | None = Field(description="Part of the work that is being done.")
    dataset_id: int = Field(description="Its dataset.")
    base_model_id: int = Field(description="Its base model.")
    preset: str | None = Field(description="The preset it was started with.")
    step: int = Field(description="Training steps done.")
    total_steps: int = Field(description="Training steps in all.")
    loss: float | None = Field(description="Smoothed training loss.")
    steps_per_second: float | None = Field(description="Measured speed.")
    eta_seconds: float | None = Field(description="Estimate of the training time left.")
    error: str | None = Field(description="Why it failed, as a sentence.")
    error_code: str | None = Field(description="Why it failed, as a word.")
    adapter_id: int | None = Field(description="The adapter it made.")
    adapter_version: int | None = Field(description="The version of the adapter it made.")
    trainable_parameters: int | None = Field(description="Parameters of the adapter.")
    base_parameters: int | None = Field(description="Parameters of the base model.")
    peak_memory_bytes: int | None = Field(description="Highest memory use so far.")
    training_seconds: float = Field(description="Training time of all attempts.")
    attempt: int = Field(description="How often a worker has started it.")
    resumed_at_step: int | None = Field(description="Start step of the newest attempt.")
    parent_id: int | None = Field(description="The run that it continues.")
    cancel_requested: bool = Field(description="True if it is being canceled.")
    created_at: datetime = Field(description="When it was queued.")
    started_at: datetime | None = Field(description="When a worker first started it.")
    finished_at: datetime | None = Field(description="When it ended.")
    config: dict[str, Any] = Field(description="All settings of the training.")


class SampleOut(BaseModel):
    """An image generated during a run; step 0 is the base without the adapter."""

    step: int = Field(description="Training step.")
    prompt_index: int = Field(description="Place of the prompt in the settings, from 0.")
    prompt: str = Field(description="Its prompt.")
    seed: int = Field(description="Its seed.")
    url: str = Field(description="Address of the PNG.")
    thumbnail_url: str = Field(description="Address of a small WebP of it.")


class CheckpointOut(BaseModel):
    """A saved checkpoint of a run."""

    step: int = Field(description="Training step: `continues` accepts it.")
    size_bytes: int = Field(description="Size of its files.")
    created_at: datetime = Field(description="When it was saved.")


class SeriesOut(BaseModel):
    """One metric; a NaN or infinite value is null."""

    steps: list[int] = Field(description="Training steps.")
    values: list[float | None] = Field(description="The value at each of these steps.")


class MetricsOut(BaseModel):
    """Metrics after a step; poll with `after=last_step`."""

    last_step: int = Field(description="Send it as `after` to get what comes next.")
    series: dict[str, SeriesOut] = Field(description="Points by metric, such as `loss`.")


def run_out(session: Session, run: Run) -> RunOut:
    """A run as the API shows it."""
    trained = adapters.trained_version(session, run)
    derived = {"eta_seconds", "adapter_id", "adapter_version"}
    return RunOut(
        **run.model_dump(include=set(RunOut.model_fields) - derived),
        eta_seconds=service.eta_seconds(run),
        adapter_id=trained[0].key if trained else None,
        adapter_version=trained[1].version if trained else None,
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
    request = service.RunRequest(
        dataset_id=body.dataset_id,
        base_model=body.base_model,
        preset=body.preset,
        name=body.name,
        config=body.config,
        regularization_dataset_id=body.regularization_dataset_id,
        adapter_id=body.adapter_id,
        continues=(
            service.StartCheckpoint(body.continues.run_id, body.continues.step)
            if body.continues
            else None
        ),
    )
    with state.database.write() as session:
        run = service.create_run(session, request)
        warnings = service.run_warnings(session, run)
    return RunCreated(id=run.key, status=run.status, warnings=warnings)


@router.get("/runs")
def list_runs(
    state: State,
    status: Annotated[str | None, Query(description="Only runs with this status.")] = None,
    page: Annotated[int, Query(ge=1, le=10_000, description="Number of the page.")] = 1,
) -> list[RunOut]:
    """List runs, newest first, 30 a page."""
    with state.database.read() as session:
        return [
            run_out(session, run) for run in service.list_runs(session, status=status, page=page)
        ]


@router.get("/runs/{run_id}")
def get_run(run_id: Id, state: State) -> RunOut:
    """Get a run with its progress."""
    with state.database.read() as session:
        return run_out(session, service.get_run(session, run_id))


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    responses=problems({409: "It has already ended."}),
)
def cancel_run(run_id: Id, state: State) -> RunOut:
    """Cancel a run.

    At once while it waits, within a step while it trains. Canceling twice is no error.
    """
    with state.database.write() as session:
        return run_out(session, service.cancel_run(session, run_id))


@router.post("/runs/{run_id}/stop", status_code=202, responses=NOT_RUNNING)
def stop_run(run_id: Id, state: State) -> RunOut:
    """End a training early and keep the adapter as it is."""
    return _request_action(run_id, state, "stop")


@router.post("/runs/{run_id}/sample", status_code=202, responses=NOT_RUNNING)
def sample_run(run_id: Id, state: State) -> RunOut:
    """Generate samples at the next step."""
    return _request_action(run_id, state, "sample")


@router.post("/runs/{run_id}/save", status_code=202, responses=NOT_RUNNING)
def save_run(run_id: Id, state: State) -> RunOut:
    """Save a checkpoint at the next step."""
    return _request_action(run_id, state, "save")


def _request_action(run_id: int, state: State, action: str) -> RunOut:
    with state.database.write() as session:
        return run_out(session, service.request_run_action(session, run_id, action))


@router.get("/runs/{run_id}/metrics")
def get_run_metrics(
    run_id: Id,
    state: State,
    after: Annotated[
        int, Query(ge=0, le=MAX_ID, description="Only steps after this one: `last_step`.")
    ] = 0,
) -> MetricsOut:
    """Get the loss and other figures of a run, step by step."""
    with state.database.read() as session:
        service.get_run(session, run_id)
        return MetricsOut.model_validate(service.run_metrics(session, run_id, after=after))


@router.get("/runs/{run_id}/samples")
def list_run_samples(run_id: Id, state: State) -> list[SampleOut]:
    """List the images generated during a run."""
    with state.database.read() as session:
        service.get_run(session, run_id)
        found = service.run_samples(session, run_id)
    return [
        SampleOut(
            **row.model_dump(include=set(SampleOut.model_fields) - {"url", "thumbnail_url"}),
            url=f"/media/{row.sha256}",
            thumbnail_url=f"/media/{row.sha256}/small",
        )
        for row in found
    ]


@router.get("/runs/{run_id}/checkpoints")
def list_run_checkpoints(run_id: Id, state: State) -> list[CheckpointOut]:
    """List the saved checkpoints of a run, newest first."""
    with state.database.read() as session:
        service.get_run(session, run_id)
        found = service.run_checkpoints(session, run_id)
    return [CheckpointOut.model_validate(row.model_dump()) for row in found]
