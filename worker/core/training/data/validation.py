"""The validation set: the same measurement on held-out images at every checkpoint.

Noise and timesteps are fixed, so two results differ only by what was learned in between.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from worker.core.training.config import TrainConfig
from worker.core.training.data.batches import Batch, loss_mask
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.errors import DatasetError

LEVELS = 8
NORMAL_95 = 1.96
SEED_SHIFT = 0x4E1D


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """The mean squared error of the validation set, and its 95 % confidence interval.

    The interval is of the mean over images; with a single image it is the mean itself.
    """

    mean: float
    low: float
    high: float


def split(
    images: Sequence[TrainingImage], share: float, *, seed: int
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """(training, validation) images, split by the seed; regularization images are never held out.

    At least one image is held out if the share is not 0; DatasetError when none is left to train
    on.
    """
    own = [index for index, image in enumerate(images) if not image.is_regularization]
    if not share:
        return list(images), []
    count = max(1, round(share * len(own)))
    if count >= len(own):
        raise DatasetError(
            "The dataset has too few images for a validation split. Set “Validation split” to 0."
        )
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {own[place] for place in order[:count]}
    return (
        [image for index, image in enumerate(images) if index not in chosen],
        [images[index] for index in sorted(chosen)],
    )


class ValidationSet:
    """Every held-out image at `LEVELS` noise levels, in batches no larger than in training.

    The config's loss mask applies here too: the adapter was not trained on masked areas.
    """

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        images: Sequence[TrainingImage],
        *,
        timesteps: int,
        batch_size: int,
        seed: int,
        masked_as: TrainConfig | None = None,
    ) -> None:
        self._buckets = buckets
        self._images = images
        self._timesteps = timesteps
        self._batch_size = batch_size
        self._seed = seed ^ SEED_SHIFT
        self._masked_as = masked_as

    def batches(self) -> Iterator[Batch]:
        """The same batches each time."""
        generator = torch.Generator().manual_seed(self._seed)
        levels = (torch.arange(LEVELS) * 2 + 1) * self._timesteps // (2 * LEVELS)
        for bucket in self._buckets:
            for row, image in enumerate(bucket.images):
                mask = None
                if bucket.opacity is not None and self._masked_as is not None:
                    mask = loss_mask(bucket.opacity[row, 0], self._masked_as)
                noise = torch.randn((LEVELS, *bucket.mean.shape[2:]), generator=generator)
                for start in range(0, LEVELS, self._batch_size):
                    part = slice(start, min(LEVELS, start + self._batch_size))
                    count = len(levels[part])
                    yield Batch(
                        images=(image,) * count,
                        captions=(self._images[image].caption,) * count,
                        latents=bucket.mean[row, 0].expand(count, -1, -1, -1),
                        noise=noise[part],
                        timesteps=levels[part],
                        time_ids=bucket.time_ids[row].expand(count, -1),
                        mask=None if mask is None else mask.expand(count, -1, -1, -1),
                    )


def summarize_errors(errors: Sequence[tuple[int, float]]) -> ValidationLoss:
    """The mean and confidence interval of (image, error) pairs."""
    by_image: dict[int, list[float]] = {}
    for image, error in errors:
        by_image.setdefault(image, []).append(error)
    means = [sum(values) / len(values) for values in by_image.values()]
    mean = sum(means) / len(means)
    if len(means) == 1:
        return ValidationLoss(mean, mean, mean)
    variance = sum((value - mean) ** 2 for value in means) / (len(means) - 1)
    reach = NORMAL_95 * math.sqrt(variance / len(means))
    return ValidationLoss(mean, mean - reach, mean + reach)
