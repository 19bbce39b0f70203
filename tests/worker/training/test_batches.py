from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.training.adapters import diffusion
from tests.worker.training.conftest import FIXED_PREDICTIONS
from worker.core.training.config import TrainConfig
from worker.core.training.data import validation
from worker.core.training.data.batches import Batches, BatchSampler, Pool, pools
from worker.core.training.data.buckets import Size
from worker.core.training.data.epochs import steps_per_epoch
from worker.core.training.data.images import TrainingImage, WeightedCaption
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.data.split import split
from worker.core.training.data.validation import (
    PredictionError,
    ValidationSet,
    fixed_set,
    summarize_errors,
)
from worker.core.training.errors import DatasetError


def _bucket(images: tuple[int, ...], *, std: float | None = None, side: int = 2) -> EncodedBucket:
    mean = torch.arange(len(images), dtype=torch.float32).view(-1, 1, 1, 1, 1)
    mean = mean.expand(-1, 2, 4, side, side)
    deviation = None if std is None else torch.full_like(mean, std)
    return EncodedBucket(Size(16, 16), images, mean, deviation, torch.zeros(len(images), 6))


def _pool(count: int, bucket: int = 0) -> Pool:
    return Pool(bucket, tuple(range(count)), count)


def _images(captions: Sequence[str], **rules: Any) -> list[TrainingImage]:
    return [TrainingImage(Path(caption), "", caption, **rules) for caption in captions]


def test_every_picture_is_seen_equally_often() -> None:
    sampler = BatchSampler([_pool(5)], batch_size=3, seed=0)
    seen = Counter(row for _ in range(50) for row in sampler.next_rows().rows)
    assert set(seen.values()) == {30}


def test_a_bucket_is_drawn_in_proportion_to_its_pictures() -> None:
    sampler = BatchSampler([_pool(30), _pool(10, 1)], batch_size=1, seed=0)
    draws = Counter(sampler.next_rows().bucket for _ in range(2_000))
    assert draws[0] / 2_000 == pytest.approx(0.75, abs=0.05)


def test_a_batch_above_the_dataset_shows_pictures_again() -> None:
    assert Counter(BatchSampler([_pool(2)], batch_size=8, seed=0).next_rows().rows) == {0: 4, 1: 4}


def test_a_restored_position_goes_on_with_the_same_batches() -> None:
    config = TrainConfig(
        batch_size=2, flip=True, caption_dropout=0.5, noise_offset=0.1, noise_focus=-0.5
    )

    def batches() -> Batches:
        return Batches(
            [_bucket((0, 2, 4), std=1.0), _bucket((1, 3))],
            _images("abcde"),
            config,
            process=diffusion(9, config),
        )

    original, copy = batches(), batches()
    for _ in range(5):
        original.next()
    copy.load(original.state())
    for _ in range(5):
        one, two = original.next(), copy.next()
        assert (one.images, one.captions) == (two.images, two.captions)
        assert torch.equal(one.latents, two.latents)
        assert torch.equal(one.noise, two.noise)
        assert torch.equal(one.levels, two.levels)


def test_batches_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    config = TrainConfig(batch_size=2, flip=True, noise_offset=0.1)
    Batches([_bucket((0, 1), std=1.0)], _images("ab"), config, process=diffusion(9, config)).next()
    assert torch.equal(before, torch.get_rng_state())


def test_captions_follow_their_pictures_and_are_dropped_as_often_as_asked() -> None:
    config = TrainConfig(batch_size=4, caption_dropout=0.25)
    batches = Batches(
        [_bucket((2, 0))], _images(["zero", "one", "two"]), config, process=diffusion(9, config)
    )
    dropped = 0
    for _ in range(500):
        batch = batches.next()
        for image, caption, latent in zip(batch.images, batch.captions, batch.latents, strict=True):
            assert caption in ("", {0: "zero", 2: "two"}[image])
            assert latent.mean().item() == {2: 0.0, 0: 1.0}[image]
            dropped += not caption
    assert dropped / 2_000 == pytest.approx(0.25, abs=0.04)


def test_several_captions_are_drawn_by_their_share_and_again_after_a_resume() -> None:
    captions = (WeightedCaption("long", 3), WeightedCaption("short"))
    first, second = _images(["long", "only"])
    images = [replace(first, captions=captions), second]
    config = TrainConfig(batch_size=2, caption_dropout=0)
    batches = Batches([_bucket((0, 1))], images, config, process=diffusion(9, config))
    seen: Counter[str] = Counter()
    for _ in range(1_000):
        batch = batches.next()
        seen.update(batch.captions)
        assert batch.captions[batch.images.index(1)] == "only"
    assert seen["long"] / 1_000 == pytest.approx(0.75, abs=0.04)
    copy = Batches([_bucket((0, 1))], images, config, process=diffusion(9, config))
    copy.load(batches.state())
    ahead = [batches.next().captions for _ in range(9)]
    assert [copy.next().captions for _ in range(9)] == ahead
    assert len(set(ahead)) > 1


def test_of_several_captions_only_the_tags_are_shuffled() -> None:
    captions = (WeightedCaption("a, b, c, d", kind="long"), WeightedCaption("1, 2, 3", kind="tags"))
    images = [replace(_images(["a, b, c, d"])[0], captions=captions)]
    config = TrainConfig(batch_size=1, caption_dropout=0, shuffle_tags=True)
    batches = Batches([_bucket((0,))], images, config, process=diffusion(9, config))
    seen = {batches.next().captions[0] for _ in range(60)}
    assert seen == {"a, b, c, d", "1, 2, 3", "1, 3, 2"}  # the first tag is kept in front


def test_a_posterior_is_sampled_afresh_each_time() -> None:
    bucket, generator = _bucket((0,), std=2.0, side=32), torch.Generator().manual_seed(0)
    one, two = (bucket.sample_latents([0], generator, flip=False)[0] for _ in range(2))
    assert not torch.equal(one, two)
    assert one.std().item() == pytest.approx(2.0, rel=0.1)


def test_a_picture_that_repeats_is_seen_so_much_more_often() -> None:
    images = [*_images("a", repeats=3), *_images("b")]
    batches = Batches([_bucket((0, 1))], images, TrainConfig(batch_size=2), process=diffusion(9))
    seen = Counter(image for _ in range(200) for image in batches.next().images)
    assert seen == {0: 300, 1: 100}


def test_regularization_gets_half_of_the_batches_whatever_its_number() -> None:
    images = [*_images("ab"), *_images("vwxyz", is_regularization=True)]
    buckets = [_bucket((0, 2, 3, 4)), _bucket((1, 5, 6))]
    assert [(pool.bucket, pool.rows) for pool in pools(buckets, images)] == [
        (0, (0,)),
        (1, (0,)),
        (0, (1, 2, 3)),
        (1, (1, 2)),
    ]
    config = TrainConfig(batch_size=2, regularization_weight=0.25)
    batches = Batches(buckets, images, config, process=diffusion(9, config))
    kinds: Counter[bool] = Counter()
    for _ in range(1_000):
        batch = batches.next()
        (kind,) = {images[image].is_regularization for image in batch.images}
        kinds[kind] += 1
        if kind:
            assert batch.weights is not None
            assert batch.weights.tolist() == [0.25, 0.25]
        else:
            assert batch.weights is None
    assert kinds[True] / 1_000 == pytest.approx(0.5, abs=0.05)


def test_a_mask_lets_through_what_is_opaque_and_a_part_of_the_rest() -> None:
    bucket = _bucket((0,))
    opacity = torch.zeros(1, 2, 1, 2, 2)
    opacity[..., 0] = 1
    bucket = replace(bucket, opacity=opacity)
    config = TrainConfig(batch_size=1, masked_loss=True, unmasked_weight=0.1)
    mask = Batches([bucket], _images("a"), config, process=diffusion(9, config)).next().mask
    assert mask is not None
    torch.testing.assert_close(mask[0, 0], torch.tensor([[1.0, 0.1], [1.0, 0.1]]))
    without = Batches(
        [bucket], _images("a"), TrainConfig(batch_size=1), process=diffusion(9)
    ).next()
    assert without.mask is None


def test_held_out_pictures_are_masked_as_trained_ones_are() -> None:
    bucket = replace(_bucket((0,)), opacity=torch.zeros(1, 2, 1, 2, 2))
    config = TrainConfig(masked_loss=True, unmasked_weight=0.25)

    def masks(masked_as: TrainConfig) -> list[torch.Tensor | None]:
        questions = ValidationSet(
            [bucket],
            _images("a"),
            process=diffusion(1000),
            batch_size=5,
            seed=0,
            masked_as=masked_as,
        )
        return [batch.mask for batch in questions.batches()]

    first, second = masks(config)
    assert first is not None
    assert second is not None
    assert torch.equal(first, torch.full((5, 1, 2, 2), 0.25))
    assert len(second) == 3
    assert masks(TrainConfig()) == [None, None]


def test_the_fixed_images_are_four_with_sixteen_noise_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validation, "FIXED_PREDICTIONS", FIXED_PREDICTIONS)
    images = [*_images("abcdefgh"), *_images("xy", is_regularization=True)]
    buckets = [_bucket((0, 1, 8, 2, 3)), _bucket((4, 5, 6, 9, 7))]
    config = TrainConfig(batch_size=3)
    batches = list(fixed_set(buckets, images, config, process=diffusion(1_000)).batches())
    used = Counter(image for batch in batches for image in batch.images)
    assert set(used.values()) == {4}
    assert len(used) == 4
    assert not {8, 9} & used.keys()
    levels = sorted(level for batch in batches for level in batch.levels.tolist())
    assert levels == [(2 * place + 1) * 1_000 // 32 for place in range(16)]
    assert max(len(batch.images) for batch in batches) == 3


def test_an_epoch_is_as_long_as_the_batches_say() -> None:
    images = [
        *_images("ab", repeats=3),
        *_images("cdefgh"),
        *_images("xyz", is_regularization=True, repeats=9),
    ]
    buckets = [_bucket((0, 2, 3, 8)), _bucket((1, 4, 5, 6, 7, 9, 10))]
    batch_size, epochs = 4, 300
    length = steps_per_epoch(12, images_per_step=batch_size, has_regularization=True)
    sampler = BatchSampler(pools(buckets, images), batch_size=batch_size, seed=0)
    seen: Counter[int] = Counter()
    for _ in range(round(epochs * length)):
        drawn = sampler.next_rows()
        seen.update(buckets[drawn.bucket].images[row] for row in drawn.rows)
    uses = [seen[number] / epochs for number in range(8)]
    assert uses == pytest.approx([3, 3, 1, 1, 1, 1, 1, 1], rel=0.1)


def test_images_are_held_out_as_torch_shuffles_them() -> None:
    images = [TrainingImage(Path(f"{number}.png"), str(number), "") for number in range(40)]
    for seed in (0, 7, 2**32 + 5, 123_456_789_012):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()
        held_out = split(images, 0.25, seed=seed)[1]
        assert [int(image.sha256) for image in held_out] == sorted(order[:10])


def test_a_held_out_image_is_trained_in_no_other_dataset() -> None:
    images = [
        TrainingImage(Path(f"{dataset}-{name}"), name, "", dataset=dataset)
        for dataset in (0, 1)
        for name in "abcd"
    ]
    trained, held = split(images, 0.25, seed=0)
    hashes = {image.sha256 for image in held}
    assert not hashes & {image.sha256 for image in trained}
    assert len(held) == 2 * len(hashes)
    assert sorted(map(str, (image.path for image in trained + held))) == [
        str(image.path) for image in images
    ]
    copies = [replace(image, dataset=0) for image in images]
    assert len(split(copies, 0.25, seed=0)[1]) == 2  # within one, as it always was
    with pytest.raises(DatasetError, match="too few images"):
        split([images[0], images[4]], 0.5, seed=0)


def test_the_interval_of_a_validation_loss_is_that_of_its_change_image_by_image() -> None:
    def errors(*values: float) -> list[PredictionError]:
        return [PredictionError(image, 1, value, 1.0) for image, value in enumerate(values)]

    first = summarize_errors(errors(0.1, 0.5, 0.9), {})
    assert (first.low, first.mean, first.high) == pytest.approx((0.5, 0.5, 0.5))
    equal = summarize_errors(errors(0.11, 0.51, 0.91), first.images)  # each rose alike
    assert equal.low == pytest.approx(equal.high) == pytest.approx(0.51)
    mixed = summarize_errors(errors(0.11, 0.49, 0.93), first.images)  # changes 0.01, -0.01, 0.03
    assert (mixed.low, mixed.high) == pytest.approx((0.5604 - 0.1, 0.5596), abs=1e-3)
    assert summarize_errors(errors(0.1), first.images).low == 0.1  # of other images
