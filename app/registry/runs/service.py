"""Operations on runs: create, inspect, stop, cancel. Workers write through `progress`."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import lcm
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.base_models.speeds import trained_layers
from app.registry.datasets import service as datasets
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.db import database_now
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.jobs import service as jobs
from app.registry.jobs.models import Event
from app.registry.jobs.presence import present_workers
from app.registry.jobs.states import JobStatus
from app.registry.runs import search as search  # writes the keys of stored runs
from app.registry.runs.models import (
    NOTICE,
    WARNING,
    Checkpoint,
    MetricChunk,
    OwnPreset,
    Run,
    Sample,
)
from app.registry.runs.presets import get_preset, misfit, with_changes
from app.registry.runs.progress import MEASURED
from app.registry.runs.sample_sizes import sample_size_problems
from app.registry.validation import named_reasons, reason, too_long
from worker.core.old_names import accept_old_names
from worker.core.training.config import AdapterKind, TrainConfig
from worker.core.training.presets import Preset, for_optimizer, preset_config
from worker.core.training.rate_warnings import rate_warnings

MAX_NAME = 120
STATUS_PHRASES = {
    JobStatus.QUEUED: "is waiting",
    JobStatus.PAUSED: "is paused",
    JobStatus.SUCCEEDED: "has finished",
    JobStatus.FAILED: "has failed",
    JobStatus.CANCELED: "was canceled",
}
SHAPE_FIELDS = (
    "kind",
    "rank",
    "alpha",
    "rank_stabilized",
    "targets",
    "blocks",
    "train_text_encoder",
    "text_encoder_rank",
    "text_encoder_alpha",
    "optimizer",
    "lora_plus_ratio",
)
MAX_POINTS = 5_000
EVENTS_SHOWN = 100
SAMPLE_STEP_COST = 0.5  # one denoising step of one sample, as a fraction of a training step
START_UP_SECONDS = 3.0


@dataclass(frozen=True)
class RunRequest:
    """A request for a run; `config` holds only values that differ from the preset."""

    dataset_id: int
    base_model: str | int | None = None
    preset: Preset = Preset.BALANCED
    own_preset_id: int | None = None  # a saved preset, which has its own `preset`
    name: str | None = None
    config: Mapping[str, Any] | None = None
    continues: StartCheckpoint | None = None
    regularization_dataset_id: int | None = None
    adapter_id: int | None = None  # the result is its next version; None: a new adapter


@dataclass(frozen=True)
class StartCheckpoint:
    """The checkpoint of an earlier run to continue from; without a step, the newest one."""

    run_id: int
    step: int | None = None


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run on this machine, from measurements; None if there are none."""

    seconds: float | None
    trainable_parameters: int | None
    adapter_bytes: int | None


def plan_config(
    request: RunRequest,
    *,
    dataset: Dataset,
    image_count: int,
    base: BaseModel,
    own: OwnPreset | None = None,
    parent: Run | None = None,
) -> TrainConfig:
    """The full config of a run: that of the preset or the parent run, with the changes.

    `own`: the saved preset that is requested.

    Raises InvalidInput with a reason for each invalid field.
    """
    preset = preset_config(
        Preset(own.preset) if own else request.preset,
        resolution=base.resolution or 512,
        images=image_count,
        trigger_word=dataset.trigger_word,
    )
    try:
        changes = accept_old_names(request.config or {})
    except ValueError as error:
        raise InvalidInput(str(error), fields={"config": str(error)}) from None
    optimizer = changes.get("optimizer")
    if parent is None:
        default = with_changes(preset, own.config if own else {}, optimizer)
    else:
        default = for_optimizer(TrainConfig.model_validate(parent.config), optimizer)
    return check_config(default.model_dump(mode="json") | changes)


def check_config(values: Mapping[str, Any]) -> TrainConfig:
    """The config with these values. Raises InvalidInput with a reason per invalid field."""
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidInput(
            "Some settings of this run are invalid.", fields=field_reasons(error)
        ) from None


def field_reasons(error: ValidationError) -> dict[str, str]:
    """A sentence for each invalid field of a pydantic error, by field name."""
    reasons: dict[str, str] = {}
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "config"
        reasons.setdefault(field, reason(problem))
    return reasons


@dataclass(frozen=True)
class CheckedRequest:
    """The rows that a valid request names, and the full config of its run."""

    name: str
    dataset: Dataset
    base: BaseModel
    config: TrainConfig
    preset: Preset
    own_preset: OwnPreset | None
    regularization: Dataset | None
    parent: Run | None
    checkpoint: Checkpoint | None


def check_request(session: Session, request: RunRequest, *, lock: bool = False) -> CheckedRequest:
    """The rows and the config of a request; with `lock` the rows stay as they are until the end.

    Raises InvalidInput with a reason for each invalid field, and NotFound.
    """
    fields: dict[str, str] = {}
    parent, checkpoint = _find_start(session, request.continues, lock=lock)
    if parent is not None:
        request = replace(request, base_model=parent.base_model_id)
    dataset, base = _find_dataset_and_base(session, request, fields, lock=lock)
    name = (request.name or (dataset.name if dataset else "")).strip()
    if len(name) > MAX_NAME:
        fields["name"] = too_long(name, MAX_NAME)
    if dataset is None or base is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    image_count = datasets.summary(session, dataset).image_count
    if image_count == 0:
        fields["dataset_id"] = f"“{dataset.name}” has no images yet. Add some, then train."
    regularization = _find_regularization(session, request, fields, lock=lock)
    _require_adapter(session, request, base, fields)
    own = _find_own_preset(session, request, fields)
    config = None
    try:
        config = plan_config(
            request, dataset=dataset, image_count=image_count, base=base, own=own, parent=parent
        )
        if parent is not None and checkpoint is not None:
            fields |= _checkpoint_conflicts(config, parent, checkpoint)
        fields |= sample_size_problems(config, base)
    except InvalidInput as error:
        fields |= error.fields
    if fields or config is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    preset = Preset(own.preset) if own else request.preset
    return CheckedRequest(
        name, dataset, base, config, preset, own, regularization, parent, checkpoint
    )


def create_run(session: Session, request: RunRequest) -> Run:
    """Pin the dataset's current content and queue a training, optionally from a checkpoint.

    Raises InvalidInput with a reason for each invalid field, and NotFound.
    """
    checked = check_request(session, request, lock=True)
    dataset, parent, checkpoint = checked.dataset, checked.parent, checked.checkpoint
    version = datasets.pin_version(session, dataset)
    images = checked.regularization
    regularization = datasets.pin_version(session, images) if images else None
    run = Run(
        name=checked.name,
        dataset_id=dataset.key,
        dataset_version_id=version.key,
        base_model_id=checked.base.key,
        preset=checked.preset,
        own_preset=checked.own_preset.snapshot if checked.own_preset else None,
        trigger_word=dataset.trigger_word,
        config=checked.config.model_dump(mode="json"),
        total_steps=checked.config.steps,
        parent_id=parent.key if parent else None,
        regularization_version_id=regularization.key if regularization else None,
        adapter_id=request.adapter_id,
    )
    jobs.enqueue(session, run)
    if request.adapter_id is not None:
        name = adapters.get_adapter(session, request.adapter_id).name
        text = f"The result becomes the next version of “{name}”."
        jobs.record(session, Run, run.key, NOTICE, text=text)
    if parent is not None and checkpoint is not None:
        start = Checkpoint(
            run_id=run.key,
            step=checkpoint.step,
            sha256=checkpoint.sha256,
            size_bytes=checkpoint.size_bytes,
        )
        session.add(start)
        run.step = checkpoint.step
        text = f"Continues from step {checkpoint.step:,} of “{parent.name}” (run {parent.key})."
        jobs.record(session, Run, run.key, NOTICE, text=text)
    return run


def run_warnings(session: Session, run: Run) -> list[str]:
    """Likely mistakes in the setup of a run, one sentence each."""
    dataset = datasets.get_dataset(session, run.dataset_id)
    base = base_models.get_base_model(session, run.base_model_id)
    config = TrainConfig.model_validate(run.config)
    usual = preset_config(
        Preset(run.preset) if run.preset in set(Preset) else Preset.BALANCED,
        resolution=base.resolution or 512,
        images=run_image_count(session, run),
    )
    found = rate_warnings(config, for_optimizer(usual, config.optimizer))
    if not datasets.caption_has_trigger(session, dataset):
        found.append(
            f"No caption contains the trigger word “{dataset.trigger_word}”, so it will have no "
            "effect."
        )
    if note := misfit(run.own_preset or {}, base):
        found.append(note)
    return found


def _find_own_preset(
    session: Session, request: RunRequest, fields: dict[str, str]
) -> OwnPreset | None:
    """The saved preset, if one is requested."""
    if request.own_preset_id is None:
        return None
    try:
        return get_preset(session, request.own_preset_id)
    except NotFound as error:
        fields["preset"] = error.detail
        return None


def _require_adapter(
    session: Session, request: RunRequest, base: BaseModel, fields: dict[str, str]
) -> None:
    """Add an error to `fields` if the run cannot create a version of the requested adapter."""
    if request.adapter_id is None:
        return
    try:
        adapter = adapters.require_listed(adapters.get_adapter(session, request.adapter_id))
    except (NotFound, Conflict) as error:
        fields["adapter_id"] = error.detail
        return
    if base.family is not None and base.family != adapter.base_family:
        fields["adapter_id"] = (
            f"“{adapter.name}” is for {adapter.family_label}, but “{base.name}” belongs to another "
            "family. Leave this empty to create a new adapter."
        )


def _find_regularization(
    session: Session, request: RunRequest, fields: dict[str, str], *, lock: bool
) -> Dataset | None:
    """The dataset of regularization images, if one is requested."""
    key, name = request.regularization_dataset_id, "regularization_dataset_id"
    if key is None:
        return None
    if key == request.dataset_id:
        fields[name] = "This is the training dataset itself. Choose another dataset."
        return None
    try:
        dataset = datasets.get_dataset(session, key, lock=lock)
    except NotFound:
        fields[name] = "This dataset does not exist; it may have been deleted. Choose another."
        return None
    if datasets.summary(session, dataset).image_count == 0:
        fields[name] = "This dataset has no images yet. Add some, or choose another."
    return dataset


def _find_start(
    session: Session, start: StartCheckpoint | None, *, lock: bool
) -> tuple[Run | None, Checkpoint | None]:
    """The run and checkpoint to continue from. Raises NotFound, or InvalidInput if deleted."""
    if start is None:
        return None, None
    parent = get_run(session, start.run_id, lock=lock)
    kept = run_checkpoints(session, parent.key)
    for checkpoint in kept:
        if start.step in (None, checkpoint.step):
            return parent, checkpoint
    steps = ", ".join(f"{row.step:,}" for row in kept) or "none"
    sentence = f"That checkpoint was deleted. This run still has checkpoints at steps: {steps}."
    raise InvalidInput(sentence, fields={"continues": sentence})


def _checkpoint_conflicts(
    config: TrainConfig, parent: Run, checkpoint: Checkpoint
) -> dict[str, str]:
    """Fields of a config that do not fit the checkpoint to continue from, with reasons."""
    was = TrainConfig.model_validate(parent.config)
    before, now = _adapter_shape(was), _adapter_shape(config)
    fields = {
        name: f"The checkpoint was made with {getattr(was, name)}. Use the same value."
        for name in SHAPE_FIELDS
        if before[name] != now[name] and getattr(was, name) != getattr(config, name)
    }
    if config.steps <= checkpoint.step:
        fields["steps"] = (
            "Steps are counted from the start of the original run: enter more than "
            f"{checkpoint.step:,}."
        )
    return fields


def _adapter_shape(config: TrainConfig) -> dict[str, Any]:
    """The fields that determine an adapter's matrices, with defaults filled in."""
    shape = {name: getattr(config, name) for name in SHAPE_FIELDS}
    text_rank = config.text_encoder_rank or config.rank
    text_alpha = config.text_encoder_alpha or config.alpha / config.rank * text_rank
    blocks = frozenset(block.strip() for block in config.blocks.split(","))
    shape |= {"text_encoder_rank": text_rank, "text_encoder_alpha": text_alpha, "blocks": blocks}
    if not config.train_text_encoder:
        shape |= {"text_encoder_rank": None, "text_encoder_alpha": None}
    return shape


def _find_dataset_and_base(
    session: Session, request: RunRequest, fields: dict[str, str], *, lock: bool
) -> tuple[Dataset | None, BaseModel | None]:
    dataset = base = None
    try:
        dataset = datasets.get_dataset(session, request.dataset_id, lock=lock)
    except NotFound:
        fields["dataset_id"] = (
            "This dataset does not exist; it may have been deleted. Choose another."
        )
    try:
        base = base_models.find_base_model(session, request.base_model)
        base_models.require_ready(base)
    except InvalidInput as error:
        fields |= error.fields
    return dataset, base


def estimate(session: Session, base: BaseModel, config: TrainConfig) -> Estimate:
    """Time, parameters and file size of a run with this config, from the nearest measurement.

    The number of trained parameters requires a measurement of the same layers; the file size of a
    LoHa or LoKr also one of the same rank.
    """
    resolution = config.resolution or base.resolution or 512
    speed = base_models.nearest_speed(session, base, config, resolution=resolution)
    if speed is None:
        return Estimate(None, None, None)
    batch = speed.seconds_per_step * config.batch_size / speed.batch_size
    sample_steps = count_sample_rows(config) * len(config.sample_prompts) * config.sample_steps
    sampling = sample_steps * SAMPLE_STEP_COST * batch / config.batch_size
    share = config.rank / speed.rank
    knows_layers = speed.layers == trained_layers(config)
    knows_file = knows_layers and (config.kind is AdapterKind.LORA or share == 1)
    return Estimate(
        seconds=START_UP_SECONDS + config.steps * batch * config.step_cost + sampling,
        trainable_parameters=round(speed.trainable_parameters * share) if knows_layers else None,
        adapter_bytes=round(speed.adapter_bytes * share) if knows_file else None,
    )


def count_sample_rows(config: TrainConfig) -> int:
    """Number of rows of samples: of the base, of every checkpoint, and those between."""
    every, saves = config.sample_every, config.checkpoint_every
    before = config.steps - 1  # the last step has a row anyway
    rows = sum(before // number for number in (every, saves) if number)
    return 2 + rows - (before // lcm(every, saves) if every and saves else 0)


def get_run(session: Session, run_id: int, *, lock: bool = False) -> Run:
    """Look up a run. Raises NotFound."""
    run = session.get(Run, run_id, with_for_update=lock or None)
    if run is None:
        raise NotFound("This run does not exist. The runs page lists all runs.")
    return run


def eta_seconds(run: Run) -> float | None:
    """Remaining training seconds at the measured speed; None if unknown."""
    if run.state is not JobStatus.RUNNING or not run.steps_per_second:
        return None
    return max(0, run.total_steps - run.step) / run.steps_per_second


def cancel_run(session: Session, run_id: int) -> Run:
    """Cancel a run; idempotent. Raises Conflict if it has already ended."""
    run = get_run(session, run_id)
    jobs.request_cancel(session, Run, run)
    return run


def request_run_action(session: Session, run_id: int, action: str) -> Run:
    """Request `stop`, `sample` or `save` at the next step of a running training."""
    run = get_run(session, run_id)
    if run.state is not JobStatus.RUNNING:
        raise Conflict(f"This run {STATUS_PHRASES[run.state]}; only a running run can do that.")
    setattr(run, f"{action}_requested", True)
    session.add(run)
    jobs.record(session, Run, run_id, f"{action}_requested")
    return run


def run_samples(session: Session, run_id: int) -> list[Sample]:
    """All samples of a run, by step and prompt."""
    query = select(Sample).where(Sample.run_id == run_id)
    return list(session.exec(query.order_by(col(Sample.step), col(Sample.prompt_index))))


def run_checkpoints(session: Session, run_id: int) -> list[Checkpoint]:
    """The stored checkpoints of a run, newest first."""
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return list(session.exec(query.order_by(col(Checkpoint.step).desc())))


def run_events(session: Session, run_id: int) -> list[Event]:
    """The newest events of a run and all its warnings, newest first."""
    query = select(Event).where(Event.subject == Run.__tablename__, Event.subject_id == run_id)
    newest = query.order_by(col(Event.id).desc()).limit(EVENTS_SHOWN)
    events = list(session.exec(newest))
    if len(events) == EVENTS_SHOWN:
        earlier = query.where(col(Event.kind) == WARNING, col(Event.id) < events[-1].id)
        events += session.exec(earlier.order_by(col(Event.id).desc()).limit(EVENTS_SHOWN))
    return events


def run_image_count(session: Session, run: Run) -> int:
    """Number of training images: those its dataset had when the run was queued."""
    return session.get_one(DatasetVersion, run.dataset_version_id).image_count


def has_train_worker(session: Session) -> bool:
    """True if a train worker was seen recently."""
    return bool(present_workers(session, queue=Run.queue))


def run_metrics(
    session: Session,
    run_id: int,
    *,
    after: int = 0,
    keys: Collection[str] = (),
    most: int | None = MAX_POINTS,
) -> dict[str, Any]:
    """Points after a step: {"last_step", "series": {key: {"steps": […], "values": […]}}}.

    At most `most` points per key; call again with `after=last_step` for the rest. Losses that are
    measured now and then are always complete: each comes later than the loss of its step.
    `keys`: only these metrics; empty: all.
    """
    is_new = col(MetricChunk.first_step) + col(MetricChunk.count) > after + 1
    query = select(MetricChunk).where(
        MetricChunk.run_id == run_id, is_new | col(MetricChunk.key).in_(MEASURED)
    )
    if keys:
        query = query.where(col(MetricChunk.key).in_(keys))
    chunks = session.exec(query.order_by(col(MetricChunk.first_step))).all()
    series: dict[str, dict[str, list[Any]]] = {}
    for chunk in chunks:
        points = series.setdefault(chunk.key, {"steps": [], "values": []})
        values = struct.unpack(f"<{chunk.count}f", chunk.data)
        for step, value in enumerate(values, start=chunk.first_step):
            is_included = step > after or chunk.key in MEASURED
            if is_included and (most is None or len(points["steps"]) < most):
                points["steps"].append(step)
                points["values"].append(value if value == value else None)  # JSON has no NaN
    last_steps = [
        points["steps"][-1]
        for key, points in series.items()
        if points["steps"] and key not in MEASURED
    ]
    last = min(last_steps, default=after)
    return {"last_step": last, "series": series}


def elapsed_seconds(run: Run, now: datetime) -> float | None:
    """Seconds since the run started, until it finished or now; None before its start."""
    return ((run.finished_at or now) - run.started_at).total_seconds() if run.started_at else None


def queue_seconds(session: Session, run: Run) -> float | None:
    """Seconds since the run started, until it finished or now, by the database's clock."""
    return elapsed_seconds(run, database_now(session)) if run.started_at else None
