"""Evaluations of the weights of a version: where its style starts to show, is best, and breaks.

The grid has the base model and the weights as columns, and as rows subjects that no caption names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, select

from app.registry import evaluations
from app.registry.adapters import fitting
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.usual_weight import keep_weight_card
from app.registry.base_models import service as base_models
from app.registry.base_models.service import BaseReference
from app.registry.datasets import service as datasets
from app.registry.datasets.pinned import current_items
from app.registry.datasets.several_captions import item_captions
from app.registry.datasets.used_datasets import version_datasets
from app.registry.errors import InvalidInput, NotFound, invalid_field
from app.registry.evaluations import EvaluationDraft
from app.registry.job_kinds.kinds import EvaluateWeightsArgs
from app.registry.jobs.rights import may_add
from app.registry.renders.grids.numbers import read_numbers
from app.registry.renders.plan import base_for, usual_of
from app.registry.runs.presets import prompt_form_of
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.wording import plural
from worker.core.evaluation.subjects import FEWEST_IMAGES, spread
from worker.core.lora_files.weights import WeightCard
from worker.core.training.presets import prompts_of

WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
FEWEST_WEIGHTS = 3
MOST_WEIGHTS = 12
SUBJECTS = 16
MOST_IMAGES = 48  # of the dataset; more of them say no more of its style
NO_IMAGES = (
    "The style is measured against images of it, and none that this version was trained on are "
    "here. Choose a dataset of the style."
)


@dataclass(frozen=True)
class WeightRequest:
    """What to compare: weights of a version, on so many subjects or those of `prompt_set`.

    `weights`: None for `WEIGHTS`, as many times as large as the base model needs. `base_model`:
    None for that of the version. `dataset_id`: whose images have the style; None for those that the
    version was trained on.
    """

    subjects: int = SUBJECTS
    weights: Sequence[float] | None = None
    base_model: BaseReference | None = None
    dataset_id: int | None = None
    prompt_set: int | str | None = None


def draft_weights(
    session: Session, made: AdapterAndVersion, wanted: WeightRequest
) -> EvaluationDraft:
    """Check an evaluation of weights and estimate its cost; `evaluations.plan_images` plans it.

    Raises InvalidInput with the reason by field, and NotReady for a base model that is not ready.
    """
    adapter, version = made
    base = _fitting_base(session, made, wanted.base_model)
    usual = (usual_of(base).weight * one for one in WEIGHTS)
    weights = tuple(sorted(set(usual if wanted.weights is None else wanted.weights)))
    if not FEWEST_WEIGHTS <= len(weights) <= MOST_WEIGHTS or weights[0] <= 0:
        raise invalid_field(
            "weights", f"Compare {FEWEST_WEIGHTS} to {MOST_WEIGHTS} different weights above 0."
        )
    items = _checked_items(session, version, wanted.dataset_id)
    texts = [text for item in items for text in item_captions(item)]
    subjects, used = evaluations.choose_subjects(session, texts, wanted.subjects, wanted.prompt_set)
    own = [one.dataset.key for one in version_datasets(session, version)]
    word = next(iter(version.trigger_words or adapter.trigger_words), None)
    form = prompt_form_of(session, wanted.dataset_id or next(iter(own), None), word)
    args = EvaluateWeightsArgs(
        grid_id=0,
        prompt_set=used,
        subjects=tuple(subjects),
        prompts=tuple(prompts_of(subjects, form)),
        weights=weights,
        base_model_id=base.key,
        dataset_id=wanted.dataset_id,
    )
    title = f"Which weight of {adapter.name}?"
    candidates = [(f"Weight {one:g}", adapter, version.version, one) for one in weights]
    columns = evaluations.adapter_columns(candidates)
    draft = EvaluationDraft(version.key, title, base, columns, args)
    return evaluations.with_seconds(session, draft)


def read_weights(text: str) -> tuple[float, ...]:
    """The weights of a list whose entries may be ranges. Raises InvalidInput."""
    try:
        return tuple(map(float, read_numbers(text)))
    except InvalidInput as error:
        raise invalid_field("weights", error.detail) from error


def style_items(
    session: Session, version: AdapterVersion, dataset_id: int | None
) -> list[dict[str, Any]]:
    """Images with their captions that have the style of a version, at most `MOST_IMAGES`.

    Those that it was trained on, or those of the dataset that a person named. Raises NotFound.
    """
    if dataset_id is None:
        items = [item for one in version_datasets(session, version) for item in one.pinned.items]
    else:
        items = current_items(session, datasets.get_dataset(session, dataset_id).key)
    return spread(items, MOST_IMAGES)


def subject_of(session: Session, version_id: int | None) -> AdapterAndVersion | None:
    """The version with its adapter; None once one of them was deleted."""
    query = select(AdapterVersion).where(AdapterVersion.id == version_id)
    version = session.exec(query).first()
    adapter = session.get(Adapter, version.adapter_id) if version else None
    return (adapter, version) if version and adapter and adapter.deleted_at is None else None


def keep_card(session: Session, job: IoJob, base: BaseModel, card: WeightCard) -> None:
    """Keep what an evaluation measured with its version.

    Skipped where its owner may not change the adapter, or would tell others of a private base.
    """
    made = subject_of(session, job.subject_id)
    if made is not None and may_add(session, job, made[0]):
        keep_weight_card(session, *made, base, card)


def _checked_items(
    session: Session, version: AdapterVersion, dataset_id: int | None
) -> list[dict[str, Any]]:
    try:
        items = style_items(session, version, dataset_id)
    except NotFound as error:
        raise invalid_field("dataset_id", error.detail) from error
    if not items and dataset_id is None:
        raise invalid_field("dataset_id", NO_IMAGES)
    if len(items) < FEWEST_IMAGES:
        raise invalid_field(
            "dataset_id",
            f"A style is measured against {FEWEST_IMAGES} images or more, and there "
            f"{'is' if len(items) == 1 else 'are'} {plural(len(items), 'image')}. Choose a dataset "
            "with more images of the style.",
        )
    return items


def _fitting_base(
    session: Session, made: AdapterAndVersion, named: BaseReference | None
) -> BaseModel:
    """The base model to draw with. Raises InvalidInput and NotReady."""
    try:
        base = base_for(session, named, [made])
        if sentences := fitting.misfits(session, [made], base):
            raise InvalidInput(sentences[0])
        base_models.require_ready(base)
    except (InvalidInput, NotFound) as error:
        raise invalid_field("base_model", error.detail) from error
    return base
