"""Requests for runs: checked with a reason for each invalid field, then queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from sqlmodel import Session

from app.registry import prompt_sets
from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE, size_problem
from app.registry.datasets import pinned
from app.registry.datasets import service as datasets
from app.registry.errors import Conflict, InvalidInput, NotFound, invalid_field
from app.registry.jobs import rights
from app.registry.jobs import service as jobs
from app.registry.runs.presets import (
    asks_for_evaluation,
    family_reasons,
    get_preset,
    prompt_form_of,
    with_changes,
)
from app.registry.runs.progress import checkpoints
from app.registry.runs.service import get_run
from app.registry.runs.several_datasets import (
    NO_DATASET,
    CheckedDataset,
    DatasetWish,
    NewRunDataset,
    add_further,
    check_datasets,
    nothing_to_train_on,
    trigger_word_problem,
)
from app.registry.slugs import Number, RowId
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import NOTICE, Checkpoint, OwnPreset, Run
from app.registry.validation import named_reasons, one_line, reason, too_long
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.old_names import accept_old_names
from worker.core.training.config import MAX_SAMPLE_PROMPTS, TrainConfig
from worker.core.training.presets import (
    Preset,
    PromptForm,
    for_optimizer,
    preset_config,
    prompts_of,
)
from worker.core.training.prompts import parse_prompt

MAX_NAME = 120
ANOTHER_BASE = (
    "A run goes on with the base model of its checkpoint. Leave the base model out, or start a new "
    "run with this one."
)
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


@dataclass(frozen=True)
class RunRequest:
    """A request for a run; `config` holds only values that differ from the preset.

    `repeats`: how often an epoch uses the first dataset; `further`: more datasets, with theirs.
    `trigger_word`: None for that of the first dataset, "" for none.
    """

    dataset_id: int
    repeats: object = 1
    further: Sequence[DatasetWish] = ()
    trigger_word: str | None = None
    base_model: str | int | None = None
    preset: Preset = Preset.BALANCED
    own_preset_id: int | None = None  # a saved preset, which has its own `preset`
    name: str | None = None
    config: Mapping[str, Any] | None = None
    prompt_set: int | str | None = None  # its first subjects are the sample prompts
    continues: StartCheckpoint | None = None
    regularization_dataset_id: int | None = None
    adapter_id: int | None = None  # the result is its next version; None: a new adapter

    @property
    def wishes(self) -> list[DatasetWish]:
        """All its datasets with their repeats, the first one first."""
        return [DatasetWish(self.dataset_id, self.repeats), *self.further]


@dataclass(frozen=True)
class StartCheckpoint:
    """A checkpoint of an earlier run; without a step, its newest."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    run_id: Annotated[RowId, Field(description="The earlier run.")]
    step: Annotated[
        Number | None, Field(description="Step of the checkpoint; absent: its newest.")
    ] = None


def plan_config(
    request: RunRequest,
    *,
    prompt_form: PromptForm,
    image_count: int,
    base: BaseModel,
    own: OwnPreset | None = None,
    parent: Run | None = None,
) -> TrainConfig:
    """The full config of a run: that of the preset or the parent run, with the changes.

    `own`: the saved preset that is requested.

    Raises InvalidInput with a reason for each invalid field.
    """
    try:
        changes = accept_old_names(request.config or {})
    except ValueError as error:
        raise InvalidInput(str(error), fields={"config": str(error)}) from None
    preset = preset_config(
        Preset(own.preset) if own else request.preset,
        resolution=base.resolution or 512,
        images=image_count,
        family=find_family(base.family),
        prompt_form=prompt_form,
        evaluate=asks_for_evaluation(changes, own.config if own else {}),
    )
    optimizer = changes.get("optimizer")
    if parent is None:
        changed = own.config if own else {}
        default = with_changes(preset, changed, optimizer, family=base.family)
    else:
        default = for_optimizer(TrainConfig.model_validate(parent.config), optimizer)
    return check_config(default.model_dump(mode="json") | changes, family=base.family)


def check_config(values: Mapping[str, Any], *, family: str | None = None) -> TrainConfig:
    """The config with these values, for a base model of this family.

    Raises InvalidInput with a reason per invalid field.
    """
    try:
        config = TrainConfig.model_validate(dict(values))
        reasons = family_reasons(config, family)
    except ValidationError as error:
        reasons = field_reasons(error)
    if reasons:
        raise InvalidInput("Some settings of this run are invalid.", fields=reasons)
    return config


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
    datasets: list[CheckedDataset]
    trigger_word: str | None
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
        named = request.base_model is not None and _find_base(session, request, fields)
        if named and named.key != parent.base_model_id:
            fields["base_model"] = ANOTHER_BASE
        request = replace(request, base_model=parent.base_model_id)
    if lock:
        others = request.regularization_dataset_id
        datasets.lock_datasets(
            session, {wish.dataset_id for wish in request.wishes} | {others or 0}
        )
    found = check_datasets(session, request.wishes, fields)
    base = _find_base(session, request, fields)
    first = found[0].summary.dataset if found and found[0].place == 1 else None
    name = one_line(request.name or (first.name if first else ""))
    if len(name) > MAX_NAME:
        fields["name"] = too_long(name, MAX_NAME)
    trigger_word = _trigger_word(request, first, fields)
    if first is None or base is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    image_count = sum(one.summary.trained_count for one in found)
    regularization = _find_regularization(session, request, fields)
    _require_adapter(session, request, base, fields)
    own = _find_own_preset(session, request, fields)
    config = None
    prompt_form = prompt_form_of(session, first.key, trigger_word)
    try:
        config = plan_config(
            _with_prompts(session, request, prompt_form),
            prompt_form=prompt_form,
            image_count=image_count,
            base=base,
            own=own,
            parent=parent,
        )
        if parent is not None and checkpoint is not None:
            fields |= _checkpoint_conflicts(config, parent, checkpoint)
        fields |= _size_problems(config, base)
    except InvalidInput as error:
        fields |= error.fields
    if fields or config is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    preset = Preset(own.preset) if own else request.preset
    return CheckedRequest(
        name=name,
        datasets=found,
        trigger_word=trigger_word,
        base=base,
        config=config,
        preset=preset,
        own_preset=own,
        regularization=regularization,
        parent=parent,
        checkpoint=checkpoint,
    )


def create_run(session: Session, request: RunRequest) -> Run:
    """Pin the current content of the datasets and queue a training, optionally from a checkpoint.

    Raises InvalidInput with a reason for each invalid field, and NotFound.
    """
    checked = check_request(session, request, lock=True)
    parent, checkpoint = checked.parent, checked.checkpoint
    first, *further = [
        NewRunDataset(
            one.summary.dataset.key,
            pinned.pin_version(session, one.summary.dataset).key,
            one.repeats,
        )
        for one in checked.datasets
    ]
    images = checked.regularization
    regularization = pinned.pin_version(session, images) if images else None
    run = Run(
        name=checked.name,
        dataset_id=first.dataset_id,
        dataset_version_id=first.version_id,
        dataset_repeats=first.repeats,
        base_model_id=checked.base.key,
        preset=checked.preset,
        own_preset=checked.own_preset.snapshot if checked.own_preset else None,
        trigger_word=checked.trigger_word,
        config=checked.config.model_dump(mode="json"),
        total_steps=checked.config.steps,
        parent_id=parent.key if parent else None,
        regularization_version_id=regularization.key if regularization else None,
        adapter_id=request.adapter_id,
    )
    jobs.enqueue(session, run)
    add_further(session, run, further)
    if request.adapter_id is not None:
        adapter = adapters.get_adapter(session, request.adapter_id)
        rights.require_addition(session, run, adapter, "adapter_id")
        text = f"The result becomes the next version of “{adapter.name}”."
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


def _with_prompts(session: Session, request: RunRequest, form: PromptForm) -> RunRequest:
    """The request with the first subjects of its prompt set as sample prompts in this form."""
    if request.prompt_set is None:
        return request
    changes = request.config or {}
    if "sample_prompts" in changes:
        raise invalid_field("prompt_set", "Send this or sample_prompts, not both.")
    _, subjects = prompt_sets.find_version(session, request.prompt_set)
    prompts = prompts_of(subjects[:MAX_SAMPLE_PROMPTS], form)
    return replace(request, config={**changes, "sample_prompts": prompts})


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
    session: Session, request: RunRequest, fields: dict[str, str]
) -> Dataset | None:
    """The dataset of regularization images, if one is requested."""
    key, name = request.regularization_dataset_id, "regularization_dataset_id"
    if key is None:
        return None
    if key in [wish.dataset_id for wish in request.wishes]:
        fields[name] = "This is a training dataset itself. Choose another dataset."
        return None
    try:
        dataset = datasets.get_dataset(session, key)
    except NotFound:
        fields[name] = NO_DATASET
        return None
    summary = datasets.summary(session, dataset)
    if summary.trained_count == 0:
        fields[name] = nothing_to_train_on(summary)
    return dataset


def _trigger_word(request: RunRequest, first: Dataset | None, fields: dict[str, str]) -> str | None:
    """The trigger word of the run: that of the first dataset unless a valid one is asked for."""
    usual = first.trigger_word if first else None
    if request.trigger_word is None:
        return usual
    word = request.trigger_word.strip()
    if problem := trigger_word_problem(word):
        fields["trigger_word"] = problem
        return usual
    return word or None


def _find_start(
    session: Session, start: StartCheckpoint | None, *, lock: bool
) -> tuple[Run | None, Checkpoint | None]:
    """The run and checkpoint to continue from. Raises NotFound, or InvalidInput if deleted."""
    if start is None:
        return None, None
    parent = get_run(session, start.run_id, lock=lock)
    kept = checkpoints(session, parent.key)
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


def _find_base(session: Session, request: RunRequest, fields: dict[str, str]) -> BaseModel | None:
    base = None
    try:
        base = base_models.find_base_model(session, request.base_model)
        base_models.require_ready(base)
        if base.untrained:
            fields["base_model"] = base.untrained
    except InvalidInput as error:
        fields |= error.fields
    return base


def _size_problems(config: TrainConfig, base: BaseModel) -> dict[str, str]:
    """A reason, by field, if the base has no images of the resolution or of a sample's size."""
    facts = (find_family(base.family) or FALLBACK_FAMILY).facts
    if reason := facts.side_problem([config.resolution] if config.resolution else []):
        return {"resolution": reason}
    side = config.resolution or base.resolution or USUAL_SIDE
    for line in config.sample_prompts:
        prompt = parse_prompt(line)
        sides = [size for size in (prompt.width, prompt.height) if size is not None]
        reason = facts.side_problem(sides)
        if sides and not reason:
            reason = size_problem(base, prompt.width or side, prompt.height or side) or ""
        if reason:
            return {"sample_prompts": f"“{prompt.text}”: {reason}"}
    return {}
