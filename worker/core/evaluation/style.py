"""The closeness of images to a style, on a scale that has two ends.

0 are the base's own images of the same prompts, 1 is the dataset as this base can draw it: passed
through the base's autoencoder, as the true images score below good renders without it. Sets are
compared by the means of channel statistics of early blocks of the eyes (Li et al. 2017,
arXiv:1701.01036, describe a style so), and the sampling noise of both means is taken off.

`PatchScale` measures by small patches, which is sharpest where a weight is best: the sliced
Wasserstein distance between the patches of two sets (Rabin et al. 2011; Elnekave and Weiss 2022,
arXiv:2203.14862, for the look of images), at two sizes of patches and two scales.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from worker.core.evaluation.errors import NotMeasured
from worker.core.evaluation.subjects import FEWEST_IMAGES
from worker.core.eyes.interface import ChannelStatistics

CLEAR = 3.0
"""Base and dataset are told apart if their distance is this many times its own noise."""

ALL = slice(None)
Values = NDArray[np.floating]

SIDES = (128, 64)
"""Sizes to which images are reduced, in pixels."""

PATCHES = (5, 9)
STRIDE = 4
DIRECTIONS = 64
QUANTILES = np.linspace(0.005, 0.995, 100)


@dataclass(frozen=True)
class StyleScore:
    """0 as the base, 1 as the dataset; below 0 farther from the dataset than the base.

    `parts`: one value for each prompt, to compare candidates prompt by prompt: the jackknife's
    pseudo-values (Tukey 1958), whose mean is the score but for its bias.
    """

    score: float
    parts: Values


@dataclass(frozen=True)
class _BlockScale:
    """One block: the references in units of the deviation inside them, and their distance."""

    base: Values
    dataset: Values
    deviation: Values

    @classmethod
    def of(cls, base: Values, dataset: Values) -> _BlockScale:
        deviation = np.sqrt((base.var(axis=0, ddof=1) + dataset.var(axis=0, ddof=1)) / 2)
        deviation = np.maximum(deviation, 1e-6)
        return cls(base / deviation, dataset / deviation, deviation)

    def score(self, images: Values, base: Values) -> float:
        """The score of images; `base`: the base's that they are compared with, of `self.base`."""
        away = distance(images / self.deviation, self.dataset)
        return 1 - away / max(distance(base, self.dataset), 1e-6)


class StyleScale:
    """The scale between the base's images of some prompts and a dataset."""

    def __init__(self, base: ChannelStatistics, dataset: ChannelStatistics) -> None:
        """Raises NotMeasured if the dataset is too small or too near to the base."""
        if len(dataset[0]) < FEWEST_IMAGES:
            raise NotMeasured(
                f"The style is not measured: the dataset has {len(dataset[0])} images, and fewer "
                f"than {FEWEST_IMAGES} do not tell a style from its subjects."
            )
        self._blocks = [_BlockScale.of(*pair) for pair in zip(base, dataset, strict=True)]
        clear = [distance(one.base, one.dataset) / noise(one) for one in self._blocks]
        if float(np.mean(clear)) < CLEAR:
            raise NotMeasured(
                "The style is not measured: it is so close to the base model's own that the two "
                "cannot be told apart. Compare the images by eye."
            )

    def score(self, images: ChannelStatistics) -> StyleScore:
        """The score of one image for each prompt of the base's images, in the same order."""
        count = len(images[0])
        whole = self.mean_score(images)
        without = [self.mean_score(images, np.arange(count) != left) for left in range(count)]
        parts = np.array([count * whole - (count - 1) * other for other in without])
        return StyleScore(whole, parts)

    def mean_score(self, images: ChannelStatistics, kept: Values | slice = ALL) -> float:
        """The score of any images; `kept`: only these, of one image for each of the base's."""
        pairs = zip(self._blocks, images, strict=True)
        return float(np.mean([block.score(here[kept], block.base[kept]) for block, here in pairs]))


def distance(one: Values, other: Values) -> float:
    """The distance of the means of two sets (n, features), without what chance adds to it."""
    gap = np.mean((one.mean(axis=0) - other.mean(axis=0)) ** 2)
    return math.sqrt(max(0.0, float(gap - chance(one) - chance(other))))


def chance(one: Values) -> float:
    """The expected square of the error of a set's mean, averaged over the features."""
    return float(np.mean(one.var(axis=0, ddof=1))) / len(one)


def noise(block: _BlockScale) -> float:
    """The distance that two sets of one style would have by chance."""
    return math.sqrt(chance(block.base) + chance(block.dataset))


class PatchScale:
    """0 as the base's images, 1 as the dataset."""

    def __init__(self, base: Sequence[Image.Image], dataset: Sequence[Image.Image]) -> None:
        self._dataset = describe(dataset)
        self._base = self._distances(base)

    def score(self, images: Sequence[Image.Image]) -> float:
        """The score of images of the same prompts as the base's."""
        return float(np.mean(1 - self._distances(images) / np.maximum(self._base, 1e-6)))

    def _distances(self, images: Sequence[Image.Image]) -> Values:
        """One for each size of patches and scale."""
        pairs = zip(describe(images), self._dataset, strict=True)
        return np.array([np.sqrt(np.mean((one - other) ** 2)) for one, other in pairs])


def describe(images: Sequence[Image.Image]) -> list[Values]:
    """For each size of patches and scale: quantiles of the patches along directions, (n, 100)."""
    rng = np.random.default_rng(0)
    found = []
    for side in SIDES:
        pixels = [
            np.asarray(one.convert("RGB").resize((side, side), Image.Resampling.BOX)) / 255
            for one in images
        ]
        for size in PATCHES:
            axes = rng.standard_normal((size * size * 3, DIRECTIONS))
            axes /= np.linalg.norm(axes, axis=0)
            spread = np.concatenate([patches @ axes for patches in _patches(pixels, size)])
            found.append(np.quantile(spread, QUANTILES, axis=0).T)
    return found


def _patches(pixels: Sequence[Values], size: int) -> Iterator[Values]:
    """The patches of each image, (n, size * size * 3)."""
    for image in pixels:
        windows = sliding_window_view(image, (size, size, 3))[::STRIDE, ::STRIDE, 0]
        yield windows.reshape(-1, size * size * 3)
