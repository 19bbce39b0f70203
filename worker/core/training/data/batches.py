"""Makes the batches of each step with their captions, and all random numbers of a training.

All randomness comes from two generators whose state is saved, so a resumed run sees exactly what an
uninterrupted one would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.core.families.network import Process
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TAGS, TrainingImage, WeightedCaption
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.loss import sample_noise

BATCH_SEED_SHIFT = 0x5EED


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows of one bucket for batches; a row appears once per repeat of its image.

    `weight` is the relative frequency of choosing this pool.
    """

    bucket: int
    rows: tuple[int, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class BatchRows:
    """The rows of one bucket in a batch."""

    bucket: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: latents and noise (b, c, h, w), levels (b,), sizes (b, 6).

    `weights` (b,) is the loss weight per image, `mask` (b, 1, h, w) per pixel; None for all 1.
    """

    images: tuple[int, ...]
    captions: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    levels: Tensor
    sizes: Tensor
    weights: Tensor | None = None
    mask: Tensor | None = None


def pools(buckets: Sequence[EncodedBucket], images: Sequence[TrainingImage]) -> list[Pool]:
    """The pools of these buckets: style and regularization images are separate.

    With both, each kind gets half of the batches, whatever its number of images.
    """
    sides: dict[bool, list[tuple[int, tuple[int, ...]]]] = {False: [], True: []}
    for index, bucket in enumerate(buckets):
        for is_regularization, found in sides.items():
            rows = tuple(
                row
                for row, image in enumerate(bucket.images)
                if images[image].is_regularization is is_regularization
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
    """An endless series of batches; each pool is shuffled for every epoch.

    Pools are chosen in proportion to their weight. A batch may cross the end of an epoch, so a pool
    smaller than a batch repeats images.
    """

    def __init__(self, pools: Sequence[Pool], *, batch_size: int, seed: int) -> None:
        self._pools = list(pools)
        self._total = sum(pool.weight for pool in pools)
        self._batch_size = batch_size
        self._waiting: list[list[int]] = [[] for _ in pools]
        self._generator = torch.Generator().manual_seed(seed)

    def next_rows(self) -> BatchRows:
        """The next batch's rows; advances the position."""
        chosen = self._choose_pool()
        pool, waiting = self._pools[chosen], self._waiting[chosen]
        while len(waiting) < self._batch_size:
            waiting += torch.randperm(len(pool.rows), generator=self._generator).tolist()
        places = waiting[: self._batch_size]
        del waiting[: self._batch_size]
        return BatchRows(pool.bucket, tuple(pool.rows[place] for place in places))

    def state(self) -> dict[str, Any]:
        """The position, to continue exactly from here."""
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
        raise AssertionError("the weights of the pools add up to the total")


class Batches:
    """An endless series of noisy batches of encoded images."""

    def __init__(
        self,
        buckets: Sequence[EncodedBucket],
        images: Sequence[TrainingImage],
        config: TrainConfig,
        *,
        process: Process,
    ) -> None:
        self._buckets = buckets
        self._images = images
        self._config = config
        self._process = process
        self._generator = torch.Generator().manual_seed(config.seed)
        self._sampler = BatchSampler(
            pools(buckets, images),
            batch_size=config.batch_size,
            seed=config.seed ^ BATCH_SEED_SHIFT,
        )

    def next(self) -> Batch:
        """The next batch, on the CPU."""
        sampled = self._sampler.next_rows()
        bucket, count = self._buckets[sampled.bucket], len(sampled.rows)
        config, generator = self._config, self._generator
        latents, opacity = bucket.sample_latents(sampled.rows, generator, flip=config.flip)
        noise = sample_noise(latents.shape, generator, config)
        levels = self._process.draw_levels(count, generator)
        images = tuple(bucket.images[row] for row in sampled.rows)
        captions = draw_captions([self._images[image] for image in images], generator, config)
        return Batch(
            images,
            captions,
            latents,
            noise,
            levels,
            bucket.time_ids[list(sampled.rows)],
            weights=self._sampling_weights(images),
            mask=loss_mask(opacity, config),
        )

    def state(self) -> dict[str, Any]:
        """The position and the generators."""
        return {"sampler": self._sampler.state(), "chances": self._generator.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a position."""
        self._sampler.load(state["sampler"])
        self._generator.set_state(state["chances"])

    def _sampling_weights(self, images: Sequence[int]) -> Tensor | None:
        """(b,): the config's weight for regularization images, 1 for others."""
        weight = self._config.regularization_weight
        kinds = [self._images[image].is_regularization for image in images]
        if weight == 1 or not any(kinds):
            return None
        return torch.tensor([weight if kind else 1.0 for kind in kinds])


def loss_mask(opacity: Tensor | None, config: TrainConfig) -> Tensor | None:
    """(b, 1, h, w): 1 where an image is opaque, the unmasked weight where it is transparent."""
    if not config.masked_loss or opacity is None:
        return None
    least = config.unmasked_weight
    return least + (1 - least) * opacity


def draw_captions(
    images: Sequence[TrainingImage], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    """A caption of each of these images, by share, augmented.

    A batch in which every image has one caption takes no random numbers for the choice, so that
    data sets without several captions train as they always did.
    """
    chosen = [WeightedCaption(image.caption, kind=TAGS) for image in images]
    if any(image.captions for image in images):
        places = torch.rand(len(images), generator=generator).tolist()
        chosen = [
            _caption_at(place, image.captions) if image.captions else only
            for place, image, only in zip(places, images, chosen, strict=True)
        ]
    return _augment_captions(chosen, generator, config)


def _caption_at(place: float, captions: Sequence[WeightedCaption]) -> WeightedCaption:
    """The caption at a place from 0 to 1, where the captions lie in a row, as long as their share.

    With several captions, only those of the kind `TAGS` are lists of tags.
    """
    left = place * sum(caption.share for caption in captions)
    for caption in captions:
        left -= caption.share
        if left < 0:
            return caption
    return captions[-1]


def _augment_captions(
    chosen: Sequence[WeightedCaption], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    captions = [caption.text for caption in chosen]
    if config.shuffle_tags:
        captions = [
            shuffle_tags(caption.text, generator, kept=config.keep_tags)
            if caption.kind == TAGS
            else caption.text
            for caption in chosen
        ]
    dropouts = torch.rand(len(captions), generator=generator) < config.caption_dropout
    return tuple(
        "" if dropped else caption
        for caption, dropped in zip(captions, dropouts.tolist(), strict=True)
    )


def shuffle_tags(caption: str, generator: torch.Generator, *, kept: int) -> str:
    """The comma-separated tags in random order, the first `kept` ones unchanged."""
    tags = [tag.strip() for tag in caption.split(",")]
    order = torch.randperm(max(0, len(tags) - kept), generator=generator).tolist()
    return ", ".join([*tags[:kept], *(tags[kept + place] for place in order)])
