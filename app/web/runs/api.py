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
from app.web.state import Id, State
from worker.core.old_names import accept_old_names
from worker.core.training.presets import Preset

router = APIRouter(tags=["runs"])


class ContinuesIn(BaseModel):
    """A checkpoint of an earlier run; without a step, its newest."""

    model_config = ConfigDict(extra="forbid")
    run_id: int = Field(ge=1, le=MAX_ID)
    step: int | None = Field(None, ge=0)


class RunIn(BaseModel):
    """A run to queue; `config` holds only the values that differ from the preset."""

    model_config = ConfigDict(extra="forbid")
    dataset_id: int = Field(ge=1, le=MAX_ID)
    base_model: str | int | None = Field(None, description="Id or slug; absent: the embedded one.")
    preset: Preset = Preset.BALANCED
    name: str | None = Field(None, max_length=1_000)
    config: dict[str, Any] = Field(default_factory=dict)
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

    id: int
    status: str
    warnings: list[str] = Field(
        default_factory=list, description="Settings that may not be intended."
    )


class RunOut(BaseModel):
    """A run."""

    id: int
    name: str
    status: str
    phase: str | None
    dataset_id: int
    base_model_id: int
    preset: str | None
    step: int
    total_steps: int
    loss: float | None
    steps_per_second: float | None
    eta_seconds: float | None
    error: str | None
    error_code: str | None
    adapter_id: int | None
    adapter_version: int | None
    trainable_parameters: int | None
    base_parameters: int | None
    peak_memory_bytes: int | None
    training_seconds: float
    attempt: int
    resumed_at_step: int | None
    parent_id: int | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    config: dict[str, Any]


class SampleOut(BaseModel):
    """An image generated during a run; step 0 is the base without the adapter."""

    step: int
    prompt_index: int
    prompt: str
    seed: int
    url: str
    thumbnail_url: str


class CheckpointOut(BaseModel):
    """A saved checkpoint of a run."""

    step: int
    size_bytes: int
    created_at: datetime


class SeriesOut(BaseModel):
    """One metric; a NaN or infinite value is null."""

    steps: list[int]
    values: list[float | None]


class MetricsOut(BaseModel):
    """Metrics after a step; poll with `after=last_step`."""

    last_step: int
    series: dict[str, SeriesOut]


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


@router.post("/runs", status_code=202)
def create(body: RunIn, state: State) -> RunCreated:
    """Queue a run; 422 names every invalid field."""
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
def index(
    state: State,
    status: str | None = None,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> list[RunOut]:
    """Runs, newest first, a page of 30."""
    with state.database.read() as session:
        return [
            run_out(session, run) for run in service.list_runs(session, status=status, page=page)
        ]


@router.get("/runs/{run_id}")
def show(run_id: Id, state: State) -> RunOut:
    """One run, with its progress."""
    with state.database.read() as session:
        return run_out(session, service.get_run(session, run_id))


@router.post("/runs/{run_id}/cancel", status_code=202)
def cancel(run_id: Id, state: State) -> RunOut:
    """Cancel a run: at once while it waits, within a step while it trains. Idempotent."""
    with state.database.write() as session:
        return run_out(session, service.cancel_run(session, run_id))


@router.post("/runs/{run_id}/stop", status_code=202)
def stop(run_id: Id, state: State) -> RunOut:
    """End a training early and keep the adapter as it is."""
    return _request_action(run_id, state, "stop")


@router.post("/runs/{run_id}/sample", status_code=202)
def sample(run_id: Id, state: State) -> RunOut:
    """Generate samples at the next step."""
    return _request_action(run_id, state, "sample")


@router.post("/runs/{run_id}/save", status_code=202)
def save(run_id: Id, state: State) -> RunOut:
    """Save a checkpoint at the next step."""
    return _request_action(run_id, state, "save")


def _request_action(run_id: int, state: State, action: str) -> RunOut:
    with state.database.write() as session:
        return run_out(session, service.request_run_action(session, run_id, action))


@router.get("/runs/{run_id}/metrics")
def metrics(
    run_id: Id, state: State, after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0
) -> MetricsOut:
    """The loss and other figures of every step after `after`."""
    with state.database.read() as session:
        service.get_run(session, run_id)
        return MetricsOut.model_validate(service.run_metrics(session, run_id, after=after))


@router.get("/runs/{run_id}/samples")
def samples(run_id: Id, state: State) -> list[SampleOut]:
    """The samples of a run."""
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
def checkpoints(run_id: Id, state: State) -> list[CheckpointOut]:
    """The saved checkpoints of a run, newest first."""
    with state.database.read() as session:
        service.get_run(session, run_id)
        found = service.run_checkpoints(session, run_id)
    return [CheckpointOut.model_validate(row.model_dump()) for row in found]
