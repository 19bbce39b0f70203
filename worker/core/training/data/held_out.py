"""Pictures that are not trained on: the same questions about them at every checkpoint.

Noise and timesteps are fixed, so that two answers differ only by what was learned between them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from worker.core.training.config import TrainConfig
from worker.core.training.data.batches import Batch, mask_of
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.errors import DatasetError

LEVELS = 8
NORMAL_95 = 1.96
SEED_SHIFT = 0x4E1D


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The mean squared error over all questions, and its interval of 95 %.

    The interval is that of the mean over pictures; with a single picture it is the mean itself.
    """

    mean: float
    low: float
    high: float


def split(
    images: Sequence[TrainingImage], share: float, *, seed: int
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """(trained, held out) pictures, chosen by the seed; regularisation is never held out.

    At least one is held out when a share is asked for; DatasetError when none is left to train on.
    """
    own = [index for index, image in enumerate(images) if not image.is_regularisation]
    if not share:
        return list(images), []
    count = max(1, round(share * len(own)))
    if count >= len(own):
        raise DatasetError(
            "There are too few pictures to hold any of them out: set “Validation split” to 0."
        )
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {own[place] for place in order[:count]}
    return (
        [image for index, image in enumerate(images) if index not in chosen],
        [images[index] for index in sorted(chosen)],
    )


class Questions:
    """Every held-out picture at `LEVELS` noise levels, in batches that fit like a step's.

    What a config masks when training is masked here too: the adapter was not taught about it.
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
        """The same ones each time."""
        generator = torch.Generator().manual_seed(self._seed)
        levels = (torch.arange(LEVELS) * 2 + 1) * self._timesteps // (2 * LEVELS)
        for bucket in self._buckets:
            for row, image in enumerate(bucket.images):
                mask = None
                if bucket.opacity is not None and self._masked_as is not None:
                    mask = mask_of(bucket.opacity[row, 0], self._masked_as)
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


def summarise(errors: Sequence[tuple[int, float]]) -> HeldOutLoss:
    """The mean and interval of (picture, error) pairs."""
    by_picture: dict[int, list[float]] = {}
    for picture, error in errors:
        by_picture.setdefault(picture, []).append(error)
    means = [sum(values) / len(values) for values in by_picture.values()]
    mean = sum(means) / len(means)
    if len(means) == 1:
        return HeldOutLoss(mean, mean, mean)
    variance = sum((value - mean) ** 2 for value in means) / (len(means) - 1)
    reach = NORMAL_95 * math.sqrt(variance / len(means))
    return HeldOutLoss(mean, mean - reach, mean + reach)
