"""The results of an evaluation, as JSON values and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.core.evaluation.choice import Candidate, Choice
from worker.core.evaluation.intervals import mean_interval
from worker.core.evaluation.style import StyleScore
from worker.core.evaluation.weights import WeightMeasure
from worker.core.lora_files.weights import WeightCard


@dataclass(frozen=True)
class Report:
    """The candidates with their measures; `notes`: what was not measured, and why."""

    candidates: Sequence[Candidate]
    varieties: Sequence[float]
    choice: Choice
    notes: Sequence[str]

    @property
    def deciding(self) -> list[int]:
        """The places of the prompts, those on whose style the candidates differ most first."""
        parts = np.stack([one.style.parts for one in self.candidates])
        return [int(place) for place in np.argsort(-parts.std(axis=0), kind="stable")]


@dataclass(frozen=True)
class WeightReport:
    """Weights of one adapter with their measures; `styles` is the score of each."""

    measures: Sequence[WeightMeasure]
    styles: Sequence[StyleScore]
    card: WeightCard | None
    notes: Sequence[str]


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


def plain(report: Report | WeightReport) -> dict[str, Any]:
    """The report as JSON values."""
    if isinstance(report, WeightReport):
        rows = [
            asdict(one) | {"style": asdict(mean_interval(style.parts))}
            for one, style in zip(report.measures, report.styles, strict=True)
        ]
        card = asdict(report.card) if report.card else None
        return {"weights": rows, "card": card, "not_measured": report.notes}
    rows = [
        {
            "name": one.name,
            "style": asdict(one.style_interval),
            "adherence": one.mean_adherence,
            "variety": variety,
            "copy_ratio": None if one.memory is None else one.memory.ratio,
            "leak": one.leak,
            "drift": one.drift,
            "inside": one.inside,
        }
        for one, variety in zip(report.candidates, report.varieties, strict=True)
    ]
    return {"candidates": rows, "choice": asdict(report.choice), "not_measured": report.notes}


def text(report: Report | WeightReport, sheet: Path) -> str:
    """The report as lines, with the sheet of its images."""
    found = plain(report)
    by_weight = isinstance(report, WeightReport)
    columns = ["adherence", "patches"]
    if not by_weight:
        columns = ["adherence", "variety", "copy_ratio", "leak", "drift", "inside"]
    heads = "".join(f"{name.replace('_', ' '):>12}" for name in columns)
    lines = [f"{'':<13}{'style (95 % interval)':<26}{heads}"]
    for row in found["weights" if by_weight else "candidates"]:
        style, name = row["style"], f"weight {row['weight']:g}" if by_weight else row["name"]
        span = f"{style['mean']:.2f} ({style['low']:.2f} to {style['high']:.2f})"
        numbers = "".join(f"{_number(row[column]):>12}" for column in columns)
        lines.append(f"{name:<13}{span:<26}{numbers}")
    meanings = [f"{name.replace('_', ' ')}: {MEANINGS[name]}" for name in ("style", *columns)]
    lines += ["", *meanings, "", *report.notes, f"The images: {sheet}"]
    if isinstance(report, WeightReport):
        return "\n".join([*lines, f"The style {report.card.words}."] if report.card else lines)
    choice = report.choice
    lines += [f"{name}: {reason}." for name, reason in choice.left_out.items()]
    return "\n".join([*lines, f"Recommended: {choice.name or 'none'}.", choice.reason])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
