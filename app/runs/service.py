"""What people can do with runs: start, watch, stop, cancel. Workers write through `progress`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlmodel import Session, col, func, select

from app.base_models import service as base_models
from app.base_models.models import BaseModel
from app.datasets import service as datasets
from app.datasets.models import Dataset, DatasetVersion
from app.db import database_now
from app.errors import Conflict, InvalidInput, NotFound
from app.jobs import service as jobs
from app.jobs.models import Event
from app.jobs.presence import present_workers
from app.jobs.states import JobStatus
from app.runs.models import Checkpoint, MetricChunk, Run, Sample
from worker.training.config import TrainConfig
from worker.training.presets import Preset, preset_config

MAX_NAME = 120
MAX_POINTS = 5_000
RUNS_A_PAGE = 30
SAMPLE_STEP_COST = 0.5  # one denoising step of one sample picture, in parts of a training step
START_UP_SECONDS = 3.0


@dataclass(frozen=True)
class RunRequest:
    """What a person asked for; `config` holds only what differs from the preset."""

    dataset_id: int
    base_model: str | int | None = None
    preset: Preset = Preset.BALANCED
    name: str | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine, from measurements; None before there is any."""

    seconds: float | None
    trainable_parameters: int | None
    adapter_bytes: int | None


def plan_config(
    request: RunRequest, *, dataset: Dataset, image_count: int, base: BaseModel
) -> TrainConfig:
    """The whole config of a run: the preset with what was changed.

    InvalidInput names every field that is wrong.
    """
    preset = preset_config(
        request.preset,
        resolution=base.resolution or 512,
        images=image_count,
        trigger_word=dataset.trigger_word,
    )
    return check_config(preset.model_dump(mode="json") | dict(request.config or {}))


def check_config(values: Mapping[str, Any]) -> TrainConfig:
    """The config with these values; InvalidInput with a reason for each field that is wrong."""
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidInput(
            "Some settings of this run cannot be used.", fields=field_reasons(error)
        ) from None


def field_reasons(error: ValidationError) -> dict[str, str]:
    """A sentence for each field pydantic refused, by the field's name."""
    reasons: dict[str, str] = {}
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "config"
        reasons.setdefault(field, _sentence(problem))
    return reasons


def _sentence(problem: ErrorDetails) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return "There is no setting of this name."
    if kind in ("int_parsing", "int_from_float", "int_type"):
        return "This has to be a whole number."
    if kind in ("float_parsing", "float_type", "finite_number"):
        return "This has to be a number."
    if kind == "string_too_long" and isinstance(problem["input"], str):
        return (
            f"This has {len(problem['input']):,} characters; at most {context['max_length']:,} fit."
        )
    if kind == "string_too_short":
        return "This cannot be empty."
    if kind == "too_long":
        return f"These are {context['actual_length']}; at most {context['max_length']} are drawn."
    if kind == "greater_than_equal":
        return f"This has to be at least {context['ge']:,}."
    if kind == "greater_than":
        return f"This has to be more than {context['gt']:,}."
    if kind in ("less_than_equal", "less_than"):
        return f"This can be {context.get('le', context.get('lt')):,} at most."
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].upper() + message[1:].rstrip(".") + "."


def create_run(session: Session, request: RunRequest) -> Run:
    """Pin the dataset as it is now and queue a training on it."""
    fields: dict[str, str] = {}
    dataset, base = _subjects(session, request, fields)
    name = (request.name or (dataset.name if dataset else "")).strip()
    if len(name) > MAX_NAME:
        fields["name"] = f"This name has {len(name)} characters; at most {MAX_NAME} fit."
    if dataset is None or base is None:
        raise InvalidInput(" ".join(fields.values()), fields=fields)
    version = datasets.pin_version(session, dataset)
    if version.image_count == 0:
        fields["dataset_id"] = f"“{dataset.name}” has no pictures yet. Add some, then train."
    config = None
    try:
        config = plan_config(request, dataset=dataset, image_count=version.image_count, base=base)
    except InvalidInput as error:
        fields |= error.fields
    if fields or config is None:
        raise InvalidInput(" ".join(fields.values()), fields=fields)
    run = Run(
        name=name,
        dataset_id=dataset.key,
        dataset_version_id=version.key,
        base_model_id=base.key,
        preset=request.preset,
        trigger_word=dataset.trigger_word,
        config=config.model_dump(mode="json"),
        total_steps=config.steps,
    )
    return jobs.enqueue(session, run)


def _subjects(
    session: Session, request: RunRequest, fields: dict[str, str]
) -> tuple[Dataset | None, BaseModel | None]:
    dataset = base = None
    try:
        dataset = datasets.get_dataset(session, request.dataset_id, lock=True)
    except NotFound:
        fields["dataset_id"] = "There is no such dataset; it may have been deleted. Choose another."
    try:
        base = base_models.find_base_model(session, request.base_model)
        base_models.require_ready(base)
    except InvalidInput as error:
        fields |= error.fields
    return dataset, base


def estimate(session: Session, base: BaseModel, config: TrainConfig) -> Estimate:
    """Time, parameters and file size of a run with this config, from the nearest measurement."""
    resolution = config.resolution or base.resolution or 512
    speed = base_models.nearest_speed(
        session, base, batch_size=config.batch_size, resolution=resolution, rank=config.rank
    )
    if speed is None:
        return Estimate(None, None, None)
    step = speed.seconds_per_step * config.batch_size / speed.batch_size
    rows = 2 + (config.steps - 1) // config.sample_every if config.sample_every else 2
    drawn = rows * len(config.sample_prompts) * config.sample_steps
    sampling = drawn * SAMPLE_STEP_COST * step / config.batch_size
    share = config.rank / speed.rank
    return Estimate(
        seconds=START_UP_SECONDS + config.steps * step + sampling,
        trainable_parameters=round(speed.trainable_parameters * share),
        adapter_bytes=round(speed.adapter_bytes * share),
    )


def get_run(session: Session, run_id: int) -> Run:
    """The run with this id."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound("There is no such run.")
    return run


def list_runs(session: Session, *, status: str | None = None, page: int = 1) -> list[Run]:
    """A page of runs, newest first."""
    query = select(Run).order_by(col(Run.id).desc())
    if status:
        query = query.where(Run.status == status)
    return list(session.exec(query.offset((page - 1) * RUNS_A_PAGE).limit(RUNS_A_PAGE)))


def count_runs(session: Session) -> dict[str, int]:
    """How many runs are in each state."""
    return dict(session.exec(select(Run.status, func.count()).group_by(col(Run.status))).all())


def active_runs(session: Session) -> list[Run]:
    """Runs that train or wait, those that train first, then in their order."""
    query = (
        select(Run)
        .where(col(Run.status).in_((JobStatus.RUNNING, JobStatus.QUEUED)))
        .order_by(col(Run.status).desc(), col(Run.priority), col(Run.id))
    )
    return list(session.exec(query))


def runs_ahead(session: Session, run: Run) -> int:
    """How many runs come before this one while it waits."""
    if run.status != JobStatus.QUEUED:
        return 0
    ahead = (
        select(func.count())
        .select_from(Run)
        .where(
            (col(Run.status) == JobStatus.RUNNING)
            | (
                (col(Run.status) == JobStatus.QUEUED)
                & (
                    (col(Run.priority) < run.priority)
                    | ((col(Run.priority) == run.priority) & (col(Run.id) < run.key))
                )
            )
        )
    )
    return session.exec(ahead).one()


def eta_seconds(run: Run) -> float | None:
    """Seconds of stepping left at the measured speed; None while unknown."""
    if run.state is not JobStatus.RUNNING or not run.steps_per_second:
        return None
    return max(0, run.total_steps - run.step) / run.steps_per_second


def cancel_run(session: Session, run_id: int) -> Run:
    """Cancel a run; asking twice is no mistake, asking after its end is a Conflict."""
    run = get_run(session, run_id)
    jobs.request_cancel(session, Run, run)
    session.refresh(run)
    return run


def ask_of_run(session: Session, run_id: int, wish: str) -> Run:
    """Ask a training for something at its next step: `stop`, `sample` or `save`."""
    run = get_run(session, run_id)
    if run.state is not JobStatus.RUNNING:
        raise Conflict(f"This run is {run.status}; only a run that trains can do that.")
    setattr(run, f"{wish}_requested", True)
    session.add(run)
    jobs.record(session, Run, run_id, f"{wish}_requested")
    return run


def run_samples(session: Session, run_id: int) -> list[Sample]:
    """All samples of a run, by step and prompt."""
    query = select(Sample).where(Sample.run_id == run_id)
    return list(session.exec(query.order_by(col(Sample.step), col(Sample.prompt_index))))


def run_checkpoints(session: Session, run_id: int) -> list[Checkpoint]:
    """The kept checkpoints of a run, newest first."""
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return list(session.exec(query.order_by(col(Checkpoint.step).desc())))


def run_events(session: Session, run_id: int) -> list[Event]:
    """What happened to a run, newest first."""
    query = select(Event).where(Event.subject == Run.__tablename__, Event.subject_id == run_id)
    return list(session.exec(query.order_by(col(Event.id).desc())))


def run_image_count(session: Session, run: Run) -> int:
    """How many pictures the run learns from: those its dataset had when it was queued."""
    return session.get_one(DatasetVersion, run.dataset_version_id).image_count


def has_train_worker(session: Session) -> bool:
    """True while a worker that trains was seen a moment ago."""
    return bool(present_workers(session, queue=Run.queue))


def run_metrics(session: Session, run_id: int, *, after: int = 0) -> dict[str, Any]:
    """Points after a step: {"last_step", "series": {key: {"steps": […], "values": […]}}}.

    At most `MAX_POINTS` of each key; ask again with `after=last_step` for the rest.
    """
    chunks = session.exec(
        select(MetricChunk)
        .where(
            MetricChunk.run_id == run_id,
            col(MetricChunk.first_step) + col(MetricChunk.count) > after + 1,
        )
        .order_by(col(MetricChunk.first_step))
    ).all()
    series: dict[str, dict[str, list[Any]]] = {}
    for chunk in chunks:
        points = series.setdefault(chunk.key, {"steps": [], "values": []})
        values = struct.unpack(f"<{chunk.count}f", chunk.data)
        for step, value in enumerate(values, start=chunk.first_step):
            if step > after and len(points["steps"]) < MAX_POINTS:
                points["steps"].append(step)
                points["values"].append(value if value == value else None)  # JSON has no NaN
    last = min(
        (points["steps"][-1] for points in series.values() if points["steps"]), default=after
    )
    return {"last_step": last, "series": series}


def queue_seconds(session: Session, run: Run) -> float | None:
    """When a running run began until now, in seconds, by the database's clock."""
    if run.started_at is None:
        return None
    end = run.finished_at or database_now(session)
    return (end - run.started_at).total_seconds()
