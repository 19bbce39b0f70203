"""Likely mistakes in the form of a new run, told above its button; none of them stops the run."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.base_models.models import BaseModel
from app.registry.base_models.subjects import prompt_note
from app.registry.datasets import service as datasets
from app.registry.datasets.service import DatasetSummary
from app.registry.db import Session
from app.registry.wording import plural
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
    session: Session,
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
    found += _dataset_warnings(session, summary) if summary else []
    if base is not None:
        trigger = summary.dataset.trigger_word if summary else None
        found += _prompt_warnings(base, config, trigger or "")
    return found


def _dataset_warnings(session: Session, summary: DatasetSummary) -> list[PlanWarning]:
    dataset, href = summary.dataset, f"/datasets/{summary.dataset.slug}"
    bare = summary.image_count - summary.captioned_count
    found = []
    if not summary.image_count:
        found.append(PlanWarning(f"“{dataset.name}” has no images yet.", href, "Add images"))
    elif bare:
        text = (
            f"{bare:,} of {plural(summary.image_count, 'image')} "
            f"{'has' if bare == 1 else 'have'} no caption."
        )
        action = "Write it" if bare == 1 else "Write them"
        found.append(PlanWarning(text, f"{href}?show=uncaptioned", action))
    if not datasets.caption_has_trigger(session, dataset):
        text = (
            f"No caption contains the trigger word “{dataset.trigger_word}”, so it will have no "
            "effect."
        )
        found.append(PlanWarning(text, href, "Add it to the captions"))
    return found


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
