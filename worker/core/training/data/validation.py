"""Sets of images for the same measurement at every checkpoint: held-out ones, and a fixed few.

Noise and levels are fixed, so two results differ only by what was learned in between.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from worker.core.evaluation.intervals import CONFIDENCE, t_quantile
from worker.core.families.network import Process
from worker.core.training.config import TrainConfig
from worker.core.training.data.batches import Batch, loss_mask
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket

LEVELS = 8
FIXED_IMAGES = 4
FIXED_PREDICTIONS = 16
SEED_SHIFT = 0x4E1D


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """The mean squared error of the validation set, and of each image by its number.

    `low` and `high`: the 95 % interval of the change since an earlier loss, image by image
    (Student's t), placed at this mean: the losses differ if the earlier mean lies outside. Without
    an earlier loss, and with a single image, both are the mean.
    """

    mean: float
    low: float
    high: float
    images: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class PredictionError:
    """The mean squared error of one prediction; `guess` is that of predicting zero."""

    image: int
    level: float
    error: float
    guess: float


class ValidationSet:
    """Every image at the same number of noise levels, in batches no larger than in training.

    The config's loss mask applies here too: the adapter was not trained on masked areas. With
    `is_stratified`, no two images have the same level: together they cover all levels evenly.
    """

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        images: Sequence[TrainingImage],
        *,
        process: Process,
        batch_size: int,
        seed: int,
        masked_as: TrainConfig | None = None,
        levels: int = LEVELS,
        is_stratified: bool = False,
    ) -> None:
        self._levels = levels
        self._is_stratified = is_stratified
        self._buckets = buckets
        self._images = images
        self._process = process
        self._batch_size = batch_size
        self._seed = seed ^ SEED_SHIFT
        self._masked_as = masked_as

    def batches(self) -> Iterator[Batch]:
        """The same batches each time."""
        generator = torch.Generator().manual_seed(self._seed)
        number, together = 0, sum(len(bucket.images) for bucket in self._buckets)
        for bucket in self._buckets:
            for row, image in enumerate(bucket.images):
                strata, place = (together, number) if self._is_stratified else (1, 0)
                levels = self._process.middle_levels(self._levels, strata=strata, place=place)
                number += 1
                mask = None
                if bucket.opacity is not None and self._masked_as is not None:
                    mask = loss_mask(bucket.opacity[row, 0], self._masked_as)
                noise = torch.randn((len(levels), *bucket.mean.shape[2:]), generator=generator)
                for start in range(0, len(levels), self._batch_size):
                    part = slice(start, min(len(levels), start + self._batch_size))
                    count = len(levels[part])
                    yield Batch(
                        images=(image,) * count,
                        captions=(self._images[image].caption,) * count,
                        latents=bucket.mean[row, 0].expand(count, -1, -1, -1),
                        noise=noise[part],
                        levels=levels[part],
                        sizes=bucket.time_ids[row].expand(count, -1),
                        mask=None if mask is None else mask.expand(count, -1, -1, -1),
                    )


def fixed_set(
    buckets: Sequence[EncodedBucket],
    images: Sequence[TrainingImage],
    config: TrainConfig,
    *,
    process: Process,
) -> ValidationSet:
    """A few training images, spread over the dataset, for `FIXED_PREDICTIONS` predictions.

    Few enough to cost about a training step; regularization images are left out.
    """
    every = [(number, row) for number, b in enumerate(buckets) for row in range(len(b.images))]
    own = [
        (number, row)
        for number, row in every
        if not images[buckets[number].images[row]].is_regularization
    ]
    rows = own or every
    count = min(FIXED_IMAGES, len(rows))
    chosen = {rows[place * len(rows) // count] for place in range(count)}
    return ValidationSet(
        [
            bucket.take(taken)
            for number, bucket in enumerate(buckets)
            if (taken := [row for row in range(len(bucket.images)) if (number, row) in chosen])
        ],
        images,
        process=process,
        batch_size=config.batch_size,
        seed=config.measuring_seed,
        masked_as=config,
        levels=-(-FIXED_PREDICTIONS // count),
        is_stratified=True,
    )


def summarize_errors(
    errors: Sequence[PredictionError], before: Mapping[int, float]
) -> ValidationLoss:
    """The loss of these errors; `before`: the earlier loss of each image, or nothing."""
    by_image: dict[int, list[float]] = {}
    for error in errors:
        by_image.setdefault(error.image, []).append(error.error)
    images = {image: statistics.fmean(values) for image, values in by_image.items()}
    mean, reach, count = statistics.fmean(images.values()), 0.0, len(images)
    if count > 1 and before.keys() == images.keys():
        changes = [loss - before[image] for image, loss in images.items()]
        reach = t_quantile(CONFIDENCE, count - 1) * statistics.stdev(changes) / math.sqrt(count)
    return ValidationLoss(mean, mean - reach, mean + reach, images)
