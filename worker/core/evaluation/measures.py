"""Measures beside the style: what images follow, how much they vary, and what they copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from worker.core.evaluation.errors import NotMeasured
from worker.core.eyes.interface import Embeddings, Eyes, NoTextSide, unit_length
from worker.core.eyes.naming import similarity

Values = NDArray[np.floating]

FEWEST_SUBJECTS = 4
FEWEST_HELD_OUT = 4
WEAKEST_BASE = 0.05
"""The adherence of the base's own images below which a share of it says nothing."""

THUMBNAIL = 16


class Adherence:
    """Images follow their prompts: nearer to their own subject than to the other ones.

    The centered cosine to the own subject minus the mean of those to the others, as a share of what
    the base's images reach. Subjects are the eyes' names for them, or the base's images where the
    eyes do not know every name. A style changes what can be recognized: compare within a style.
    """

    def __init__(self, eyes: Eyes, subjects: Sequence[str], base: Sequence[Image.Image]) -> None:
        """`base`: an image of each subject without the adapter. Raises NotMeasured."""
        if len(set(subjects)) < max(FEWEST_SUBJECTS, len(subjects)):
            raise NotMeasured(
                "Adherence to the prompts is not measured: it takes at least "
                f"{FEWEST_SUBJECTS} prompts, each of another subject."
            )
        self._eyes = eyes
        seen = eyes.embed_images(base)
        self._points = _centered(eyes.embed_texts(subjects) if _knows(eyes, subjects) else seen)
        self._base = float(np.mean(self._own_above_others(seen)))
        if self._base < WEAKEST_BASE:
            raise NotMeasured(
                "Adherence to the prompts is not measured: even the base model's own images do "
                "not show their subjects to these eyes."
            )

    def of(self, images: Sequence[Image.Image]) -> Values:
        """For each image, of the subject at its place; 1 as the base on average."""
        return self._own_above_others(self._eyes.embed_images(images)) / self._base

    def _own_above_others(self, seen: Embeddings) -> Values:
        cosines = similarity(_centered(seen), self._points).astype(np.float64)
        own, count = np.diagonal(cosines), len(cosines)
        return np.asarray(own - (cosines.sum(axis=1) - own) / (count - 1))


def _knows(eyes: Eyes, subjects: Sequence[str]) -> bool:
    try:
        return all(eyes.knows(subjects))
    except NoTextSide:
        return False


def _centered(points: Embeddings) -> Embeddings:
    return unit_length(points - points.mean(axis=0))


def drift(eyes: Eyes, images: Sequence[Image.Image], base: Sequence[Image.Image]) -> float:
    """The mean distance of images from the base's of the same prompts; 1: as another subject."""
    seen, before = eyes.embed_images(images), eyes.embed_images(base)
    apart = [np.linalg.norm(one - other) for one, other in combinations(before, 2)]
    return float(np.linalg.norm(seen - before, axis=1).mean() / max(np.mean(apart), 1e-6))


def variety(images: Sequence[Image.Image], base: Sequence[Image.Image]) -> float:
    """The mean difference between images of different subjects, as a share of the base's."""
    return _mean_difference(images) / max(_mean_difference(base), 1e-6)


def _mean_difference(images: Sequence[Image.Image]) -> float:
    size = (THUMBNAIL, THUMBNAIL)
    small = [
        np.asarray(one.convert("RGB").resize(size, Image.Resampling.BOX), dtype=np.float64)
        for one in images
    ]
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(small, 2)]))


@dataclass(frozen=True)
class Memory:
    """Renders of the dataset's captions, compared with the images of these captions.

    `distances`: for each trained image that of its render, in the eyes' embeddings. `ratio`: their
    median over that of held-out images and the renders of their captions, which the adapter never
    saw: far below 1 when it draws its images again. None with under four held-out images.
    """

    distances: tuple[float, ...]
    ratio: float | None


class MemoryScale:
    """Trained and held-out images, to compare the renders of their captions with."""

    def __init__(
        self, eyes: Eyes, trained: Sequence[Image.Image], held_out: Sequence[Image.Image]
    ) -> None:
        self._eyes = eyes
        self._trained = self._both_ways(trained)
        self._held_out = self._both_ways(held_out) if len(held_out) >= FEWEST_HELD_OUT else None

    def of(self, trained: Sequence[Image.Image], held_out: Sequence[Image.Image]) -> Memory:
        """The memory shown by renders of the captions, in the order of the images."""
        near = self._distances(trained, self._trained)
        ratio = None
        if self._held_out is not None:
            control = self._distances(held_out, self._held_out)
            ratio = float(np.median(near) / max(float(np.median(control)), 1e-6))
        return Memory(tuple(near.tolist()), ratio)

    def _both_ways(self, images: Sequence[Image.Image]) -> tuple[Embeddings, Embeddings]:
        """Embeddings of the images and of their mirror images, as copies may be mirrored."""
        mirrored = [ImageOps.mirror(image.convert("RGB")) for image in images]
        return self._eyes.embed_images(images), self._eyes.embed_images(mirrored)

    def _distances(
        self, renders: Sequence[Image.Image], images: tuple[Embeddings, Embeddings]
    ) -> Values:
        seen = self._eyes.embed_images(renders)
        one, other = (np.linalg.norm(seen - points, axis=1) for points in images)
        return np.asarray(np.minimum(one, other))
