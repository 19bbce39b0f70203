"""The closeness of images to a style by their small patches: sharpest where a weight is best.

The sliced Wasserstein distance between the patches of two sets (Rabin et al. 2011; Elnekave and
Weiss 2022, arXiv:2203.14862, for the look of images), at two sizes of patches and two scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

SIDES = (128, 64)
"""Sizes to which images are reduced, in pixels."""

PATCHES = (5, 9)
STRIDE = 4
DIRECTIONS = 64
QUANTILES = np.linspace(0.005, 0.995, 100)

Values = NDArray[np.floating]


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
