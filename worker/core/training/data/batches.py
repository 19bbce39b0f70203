"""What each step sees: each picture as often as it should, one size in a batch, all its chances.

Every random number of a training is drawn here, from two generators whose state is saved; so a
resumed run sees exactly what an uninterrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.core.training.config import TrainConfig
from worker.core.training.data.captions import vary
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.loss import draw_noise, stratified_timesteps

BATCH_SEED_SHIFT = 0x5EED


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows of one bucket that batches are made of, a row as often as its picture repeats.

    `weight` is how often the pool is chosen, beside the weights of the others.
    """

    bucket: int
    rows: tuple[int, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Draw:
    """The rows of one bucket that make up a batch."""

    bucket: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's material: latents and noise (b, c, h, w), timesteps (b,), time ids (b, 6).

    `weights` (b,) says how much each picture counts, `mask` (b, 1, h, w) how much each place; None
    when all count alike.
    """

    images: tuple[int, ...]
    captions: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    time_ids: Tensor
    weights: Tensor | None = None
    mask: Tensor | None = None


def pools(buckets: Sequence[EncodedBucket], images: Sequence[TrainingImage]) -> list[Pool]:
    """The pools of these buckets: apart for the style and for what regularises it.

    Where there are both, each half gets half of the batches, whatever its number of pictures.
    """
    sides: dict[bool, list[tuple[int, tuple[int, ...]]]] = {False: [], True: []}
    for index, bucket in enumerate(buckets):
        for is_regularisation, found in sides.items():
            rows = tuple(
                row
                for row, image in enumerate(bucket.images)
                if images[image].is_regularisation is is_regularisation
                for _ in range(images[image].repeats)
            )
            if rows:
                found.append((index, rows))
    totals = {side: sum(len(rows) for _, rows in found) for side, found in sides.items()}
    return [
        Pool(index, rows, len(rows) * (totals[not side] or 1))
        for side, found in sides.items()
        for index, rows in found
    ]


class BatchSampler:
    """An endless series of draws; each pool is gone through in shuffled rounds.

    A pool is chosen in proportion to its weight. A batch may run over the end of a round, so a
    pool with fewer pictures than a batch simply shows some of them twice.
    """

    def __init__(self, pools: Sequence[Pool], *, batch_size: int, seed: int) -> None:
        self._pools = list(pools)
        self._total = sum(pool.weight for pool in pools)
        self._batch_size = batch_size
        self._waiting: list[list[int]] = [[] for _ in pools]
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Draw:
        """Give the next batch's rows and move on."""
        chosen = self._choose_pool()
        pool, waiting = self._pools[chosen], self._waiting[chosen]
        while len(waiting) < self._batch_size:
            waiting += torch.randperm(len(pool.rows), generator=self._generator).tolist()
        places = waiting[: self._batch_size]
        del waiting[: self._batch_size]
        return Draw(pool.bucket, tuple(pool.rows[place] for place in places))

    def state(self) -> dict[str, Any]:
        """The position, to go on from exactly here."""
        return {
            "waiting": [list(places) for places in self._waiting],
            "generator": self._generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a position."""
        self._waiting = [list(places) for places in state["waiting"]]
        self._generator.set_state(state["generator"])

    def _choose_pool(self) -> int:
        place = int(torch.randint(self._total, (), generator=self._generator))
        for chosen, pool in enumerate(self._pools):
            if place < pool.weight:
                return chosen
            place -= pool.weight
        raise AssertionError("every place lies in one of the pools")


class Batches:
    """Encoded pictures turned into noisy batches, one after another."""

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        images: Sequence[TrainingImage],
        config: TrainConfig,
        *,
        timesteps: int,
    ) -> None:
        self._buckets = buckets
        self._images = images
        self._config = config
        self._timesteps = timesteps
        self._chances = torch.Generator().manual_seed(config.seed)
        self._sampler = BatchSampler(
            pools(buckets, images),
            batch_size=config.batch_size,
            seed=config.seed ^ BATCH_SEED_SHIFT,
        )

    def next(self) -> Batch:
        """Give the next batch, on the CPU."""
        draw = self._sampler.draw()
        bucket, count = self._buckets[draw.bucket], len(draw.rows)
        config, chances = self._config, self._chances
        latents, opacity = bucket.draw(draw.rows, chances, flip=config.flip)
        noise = draw_noise(latents.shape, chances, config)
        timesteps = stratified_timesteps(count, self._timesteps, chances)
        images = tuple(bucket.images[row] for row in draw.rows)
        captions = vary([self._images[image].caption for image in images], chances, config)
        return Batch(
            images,
            captions,
            latents,
            noise,
            timesteps,
            bucket.time_ids[list(draw.rows)],
            weights=self._weights(images),
            mask=mask_of(opacity, config),
        )

    def state(self) -> dict[str, Any]:
        """The position and the generators."""
        return {"sampler": self._sampler.state(), "chances": self._chances.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a position."""
        self._sampler.load(state["sampler"])
        self._chances.set_state(state["chances"])

    def _weights(self, images: Sequence[int]) -> Tensor | None:
        """(b,): regularisation pictures count as much as the config says, others 1."""
        beside = self._config.regularisation_weight
        kinds = [self._images[image].is_regularisation for image in images]
        if beside == 1 or not any(kinds):
            return None
        return torch.tensor([beside if kind else 1.0 for kind in kinds])


def mask_of(opacity: Tensor | None, config: TrainConfig) -> Tensor | None:
    """(b, 1, h, w): 1 where a picture is opaque, the unmasked weight where it is not at all."""
    if not config.masked_loss or opacity is None:
        return None
    least = config.unmasked_weight
    return least + (1 - least) * opacity
