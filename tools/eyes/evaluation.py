"""Measures finished eyes: how often they are right, and whether their confidence is honest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.core.eyes.embedded import EmbeddedEyes, network_input
from worker.core.eyes.naming import softmax

BATCH = 64
SCALES = np.geomspace(4, 80, 120)
BINS = 10


@dataclass(frozen=True)
class Answers:
    """The answers of the eyes for some images, with the right ones."""

    title: str
    cosines: NDArray[np.float32]
    """(n, names)."""
    right: Sequence[Sequence[int]]
    """For each image, the indices of the names that are right."""

    def top(self, count: int) -> float:
        """The share of the images that have a right name among the first `count`."""
        ranked = np.argsort(-self.cosines, axis=1, kind="stable")[:, :count]
        pairs = zip(ranked, self.right, strict=True)
        return float(np.mean([np.isin(row, list(names)).any() for row, names in pairs]))


@torch.no_grad()
def ask(eyes: EmbeddedEyes, title: str, images: Tensor, names: Tensor) -> Answers:
    """The answers for images that are already (n, 3, 128, 128) in [0, 1]; one name for each."""
    parts = [eyes.head(eyes.network(network_input(part))) for part in torch.split(images, BATCH)]
    return Answers(title, torch.cat(parts).numpy(), [(name,) for name in names.tolist()])


def ask_captioned(eyes: EmbeddedEyes, title: str, folder: Path) -> Answers:
    """The answers for a dataset folder; a name is right when the caption is about it."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    images = []
    for row in rows:
        with Image.open(folder / row["file_name"]) as image:
            image.load()
            images.append(image)
    points = eyes.head.name_points().detach().cpu().numpy()
    right = [eyes.vocabulary.find(row["text"]) for row in rows]
    return Answers(title, eyes.embed_images(images) @ points.T, right)


def score_table(answers: Sequence[Answers]) -> str:
    """Top 1 and top 5 among all names, as a Markdown table."""
    rows = [f"| {a.title} | {len(a.right)} | {a.top(1):.0%} | {a.top(5):.0%} |" for a in answers]
    return "\n".join(["| images | n | top 1 | top 5 |", "|---|---|---|---|", *rows])


def fit_scale(cosines: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The factor of the cosines that makes the labels likeliest (Guo et al., 2017, "On calibration
    of modern neural networks", arXiv:1706.04599)."""
    rows = np.arange(len(labels))
    losses = [
        -np.log(softmax(cosines * scale)[rows, labels].clip(1e-12)).mean() for scale in SCALES
    ]
    return float(SCALES[int(np.argmin(losses))])


@dataclass(frozen=True)
class Honesty:
    """The fit of confidence to the share of right names."""

    error: float
    """Mean gap between confidence and share of right names over ten bins of confidence."""
    bins: tuple[tuple[float, float, int], ...]
    """Mean confidence, share of right names, and count, for each bin with images."""
    sure_from: float | None
    """The lowest confidence from which nine of ten first names are right; None: from none."""
    sure_share: float
    """The share of images that are this sure."""

    def __str__(self) -> str:
        rows = [f"| {sure:.2f} | {share:.2f} | {n} |" for sure, share, n in self.bins]
        limit = "no confidence on" if self.sure_from is None else f"{self.sure_from:.2f} on"
        head = (
            f"Mean error of the confidence {self.error:.3f}; nine of ten are right from {limit}, "
            f"which {self.sure_share:.0%} of the images reach.\n"
        )
        return "\n".join([head, "| confidence | right | n |", "|---|---|---|", *rows])


def judge_honesty(answers: Sequence[Answers], scale: float) -> Honesty:
    """The honesty of the first names over all these images."""
    confidences = np.concatenate([softmax(a.cosines * scale) for a in answers])
    names = [names for a in answers for names in a.right]
    first = confidences.argmax(axis=1)
    right = np.array([name in own for name, own in zip(first, names, strict=True)])
    return honesty(confidences.max(axis=1), right)


def honesty(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> Honesty:
    """From the confidence of each image's first name, (n,), and whether it is right."""
    place = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = tuple(
        (float(confidences[place == i].mean()), float(right[place == i].mean()), int(n))
        for i in range(BINS)
        if (n := (place == i).sum())
    )
    error = sum(n * abs(sure - share) for sure, share, n in bins) / max(1, len(right))
    for limit in np.arange(0, 1, 0.05):
        sure = confidences >= limit
        if sure.any() and right[sure].mean() >= 0.9:
            return Honesty(error, bins, float(limit), float(sure.mean()))
    return Honesty(error, bins, None, 0.0)
