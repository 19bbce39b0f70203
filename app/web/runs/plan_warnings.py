"""Likely mistakes in the form of a new run, told above its button; none of them stops the run."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.base_models.models import BaseModel
from app.registry.base_models.subjects import prompt_note
from app.registry.datasets.service import DatasetSummary
from worker.core.training.config import TrainConfig
from worker.core.training.prompts import parse_prompt
from worker.core.training.rate_warnings import rate_warnings

SHOWN_PROMPT = 60  # characters of a prompt that a warning repeats


@dataclass(frozen=True)
class PlanWarning:
    """A likely mistake, and a link to where it is put right."""

    text: str
    href: str = ""
    action: str = ""


def plan_warnings(
    summary: DatasetSummary | None,
    base: BaseModel | None,
    config: TrainConfig,
    *,
    usual: TrainConfig,
) -> list[PlanWarning]:
    """What is likely wrong with this dataset, base model and config.

    `usual` is the config of the shipped preset for this optimizer.
    """
    found = [PlanWarning(text) for text in rate_warnings(config, usual)]
    found += _dataset_warnings(summary) if summary else []
    if base is not None:
        trigger = summary.dataset.trigger_word if summary else None
        found += _prompt_warnings(base, config, trigger or "")
    return found


def _dataset_warnings(summary: DatasetSummary) -> list[PlanWarning]:
    """That there is nothing to train on; the checks of the dataset say the rest."""
    if summary.image_count:
        return []
    dataset = summary.dataset
    text = f"“{dataset.name}” has no images yet."
    return [PlanWarning(text, f"/datasets/{dataset.slug}", "Add images")]


def _prompt_warnings(base: BaseModel, config: TrainConfig, trigger: str) -> list[PlanWarning]:
    """The first sample prompt with words that the base model does not know, and which they are."""
    for line in config.sample_prompts:
        prompt = parse_prompt(line).text
        if note := prompt_note(base, prompt, taught=[trigger]):
            text = (
                f"Sample “{prompt[:SHOWN_PROMPT]}”: {note} "
                "New words are learned only from captions."
            )
            return [PlanWarning(text, f"/base-models/{base.id}/subjects", "See what it can draw")]
    return []
