"""Likely mistakes in the form of a new run, told above its button; none of them stops the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.registry.base_models.subjects import prompt_note
from app.registry.datasets import service as datasets
from app.registry.datasets.service import DatasetSummary
from app.registry.db import Session
from app.registry.tables.added_models import BaseModel
from app.registry.wording import plural
from app.web.runs.form_datasets import DatasetRow
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
    rows: Sequence[DatasetRow],
    base: BaseModel | None,
    config: TrainConfig,
    trigger_word: str,
    *,
    usual: TrainConfig,
) -> list[PlanWarning]:
    """The likely problems of these datasets, this base model, config and trigger word.

    `usual` is the config of the shipped preset for this optimizer.
    """
    found = [PlanWarning(text) for text in rate_warnings(config, usual)]
    for summary in (row.summary for row in rows if row.summary):
        found += _dataset_warnings(summary)
        found += _trigger_warnings(session, summary, trigger_word)
    if base is not None:
        found += _prompt_warnings(base, config, trigger_word)
    return found


def _trigger_warnings(
    session: Session, summary: DatasetSummary, trigger_word: str
) -> list[PlanWarning]:
    """Which images lack the trigger word of the run, where it is not that of their dataset.

    The checks of the dataset say it where it is.
    """
    dataset = summary.dataset
    if not trigger_word or trigger_word == dataset.trigger_word:
        return []
    count = datasets.count_without_word(session, dataset.key, trigger_word)
    if not count:
        return []
    lack = "lacks" if count == 1 else "lack"
    text = (
        f"{plural(count, 'image')} of “{dataset.name}” {lack} the trigger word of this run, "
        f"“{trigger_word}”, so it does not call what is learned from them."
    )
    query = urlencode({"edit": "add_trigger", "text": trigger_word})
    every = "all " if count == summary.trained_count else ""
    action = f"Add “{trigger_word}” to {every}{count:,}"
    return [PlanWarning(text, f"/datasets/{dataset.slug}?{query}", action)]


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
