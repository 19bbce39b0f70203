"""The closeness of images to a style, on a scale that has two ends.

0 are the base's own images of the same prompts, 1 is the dataset as this base can draw it: passed
through the base's autoencoder, as the true images score below good renders without it. Sets are
compared by the means of channel statistics of early blocks of the eyes (Li et al. 2017,
arXiv:1701.01036, describe a style so), and the sampling noise of both means is taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.core.evaluation.errors import NotMeasured
from worker.core.evaluation.subjects import FEWEST_IMAGES
from worker.core.eyes.interface import ChannelStatistics

CLEAR = 3.0
"""Base and dataset are told apart if their distance is this many times its own noise."""

ALL = slice(None)
Values = NDArray[np.floating]


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
