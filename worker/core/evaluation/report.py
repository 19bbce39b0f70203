"""The results of an evaluation, as JSON values and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.core.evaluation.choice import Candidate, Choice
from worker.core.evaluation.weights import WeightMeasure
from worker.core.lora_files.weights import WeightCard


@dataclass(frozen=True)
class Report:
    """The candidates with their measures; `notes`: what was not measured, and why."""

    candidates: Sequence[Candidate]
    notes: Sequence[str]


@dataclass(frozen=True)
class CheckpointReport(Report):
    """Checkpoints of one training, and which one to keep."""

    choice: Choice

    @property
    def deciding(self) -> list[int]:
        """The places of the prompts, those on whose style the candidates differ most first."""
        parts = np.stack([one.style.parts for one in self.candidates])
        return [int(place) for place in np.argsort(-parts.std(axis=0), kind="stable")]


@dataclass(frozen=True)
class WeightReport(Report):
    """Weights of one adapter."""

    candidates: Sequence[WeightMeasure]
    card: WeightCard | None


MEANINGS = {
    "style": "0 as the base model draws, 1 as the dataset; more is closer",
    "adherence": "how far images show what the prompt says; 1 as the base model's; more is better",
    "variety": "difference between images of different subjects; 1 as the base model's",
    "copy_ratio": "below 0.5 it draws its training images again; more is better",
    "leak": "style of prompts without the trigger word; 0: it comes with the word alone",
    "drift": "change of images of such prompts; 0 as the base model's, 1 as another subject",
    "inside": "style of the dataset's own captions; far above the style: use more varied images",
    "patches": "closeness of small patches, 0 as the base model, 1 as the dataset; more is closer",
}


def plain(report: CheckpointReport | WeightReport) -> dict[str, Any]:
    """The report as JSON values."""
    rows: list[dict[str, Any]] = []
    for one in report.candidates:
        key = {"weight": one.weight} if isinstance(one, WeightMeasure) else {"name": one.name}
        rows.append({**key, "style": asdict(one.style_interval), **one.figures})
    if isinstance(report, WeightReport):
        card = asdict(report.card) if report.card else None
        return {"weights": rows, "card": card, "not_measured": report.notes}
    return {"candidates": rows, "choice": asdict(report.choice), "not_measured": report.notes}


def text(report: CheckpointReport | WeightReport, sheet: Path) -> str:
    """The report as lines, with the sheet of its images."""
    columns = [*report.candidates[0].figures]
    heads = "".join(f"{name.replace('_', ' '):>12}" for name in columns)
    lines = [f"{'':<13}{'style (95 % interval)':<26}{heads}"]
    for one in report.candidates:
        style = one.style_interval
        span = f"{style.mean:.2f} ({style.low:.2f} to {style.high:.2f})"
        numbers = "".join(f"{_number(value):>12}" for value in one.figures.values())
        lines.append(f"{one.name:<13}{span:<26}{numbers}")
    meanings = [f"{name.replace('_', ' ')}: {MEANINGS[name]}" for name in ("style", *columns)]
    lines += ["", *meanings, "", *report.notes, f"The images: {sheet}"]
    if isinstance(report, WeightReport):
        return "\n".join([*lines, f"The style {report.card.words}."] if report.card else lines)
    choice = report.choice
    lines += [f"{name}: {reason}." for name, reason in choice.left_out.items()]
    return "\n".join([*lines, f"Recommended: {choice.name or 'none'}.", choice.reason])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
