"""What each step sees: every picture equally often, one size in a batch, and all its chances.

Every random number of a training is drawn here, from two generators whose state is saved; so a
resumed run sees exactly what an uninterrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.training.cache import EncodedBucket
from worker.training.config import TrainConfig
from worker.training.loss import offset_noise, stratified_timesteps

BATCH_SEED_SHIFT = 0x5EED


@dataclass(frozen=True, slots=True)
class Draw:
    """The rows of one bucket that make up a batch."""

    bucket: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's material: latents and noise (b, c, h, w), timesteps (b,), time ids (b, 6)."""

    images: tuple[int, ...]
    captions: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    time_ids: Tensor


class BatchSampler:
    """An endless series of draws; each bucket is gone through in shuffled rounds.

    A bucket is chosen in proportion to its pictures. A batch may run over the end of a round, so a
    bucket with fewer pictures than a batch simply shows some of them twice.
    """

    def __init__(self, bucket_lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths = list(bucket_lengths)
        self._batch_size = batch_size
        self._waiting: list[list[int]] = [[] for _ in bucket_lengths]
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Draw:
        """Give the next batch's rows and move on."""
        bucket = self._choose_bucket()
        waiting = self._waiting[bucket]
        while len(waiting) < self._batch_size:
            waiting += torch.randperm(self._lengths[bucket], generator=self._generator).tolist()
        rows = tuple(waiting[: self._batch_size])
        del waiting[: self._batch_size]
        return Draw(bucket, rows)

    def state(self) -> dict[str, Any]:
        """The position, to go on from exactly here."""
        return {
            "waiting": [list(rows) for rows in self._waiting],
            "generator": self._generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a position."""
        self._waiting = [list(rows) for rows in state["waiting"]]
        self._generator.set_state(state["generator"])

    def _choose_bucket(self) -> int:
        picture = int(torch.randint(sum(self._lengths), (), generator=self._generator))
        for bucket, length in enumerate(self._lengths):
            if picture < length:
                return bucket
            picture -= length
        raise AssertionError("every picture lies in one of the buckets")


class Batches:
    """Encoded pictures turned into noisy batches, one after another."""

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        captions: Sequence[str],
        config: TrainConfig,
        *,
        timesteps: int,
    ) -> None:
        self._buckets = buckets
        self._captions = captions
        self._config = config
        self._timesteps = timesteps
        self._chances = torch.Generator().manual_seed(config.seed)
        self._sampler = BatchSampler(
            [len(bucket.images) for bucket in buckets],
            batch_size=config.batch_size,
            seed=config.seed ^ BATCH_SEED_SHIFT,
        )

    def next(self) -> Batch:
        """Give the next batch, on the CPU."""
        draw = self._sampler.draw()
        bucket, count = self._buckets[draw.bucket], len(draw.rows)
        latents = bucket.draw(draw.rows, self._chances, flip=self._config.flip)
        noise = offset_noise(latents.shape, self._chances, offset=self._config.noise_offset)
        timesteps = stratified_timesteps(count, self._timesteps, self._chances)
        silent = torch.rand(count, generator=self._chances) < self._config.caption_dropout
        images = tuple(bucket.images[row] for row in draw.rows)
        captions = tuple(
            "" if dropped else self._captions[image]
            for image, dropped in zip(images, silent.tolist(), strict=True)
        )
        time_ids = bucket.time_ids[list(draw.rows)]
        return Batch(images, captions, latents, noise, timesteps, time_ids)

    def state(self) -> dict[str, Any]:
        """The position and the generators."""
        return {"sampler": self._sampler.state(), "chances": self._chances.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a position."""
        self._sampler.load(state["sampler"])
        self._chances.set_state(state["chances"])
