from __future__ import annotations

import numpy as np
import pytest

from worker.core.evaluation.errors import NotMeasured
from worker.core.evaluation.style import StyleScale
from worker.core.eyes.interface import ChannelStatistics

FEATURES = 40


def statistics(count: int, *, mean: float, seed: int) -> ChannelStatistics:
    """Two blocks of a set whose features lie around `mean`."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(mean, 1, (count, FEATURES)).astype(np.float32) for _ in range(2))


BASE = statistics(12, mean=0.0, seed=1)
SCALE = StyleScale(BASE, statistics(20, mean=4.0, seed=2))


@pytest.mark.parametrize(("mean", "expected"), [(4.0, 1.0), (2.0, 0.5), (-2.0, -0.5)])
def test_the_score_says_how_far_from_the_base_to_the_dataset(mean: float, expected: float) -> None:
    found = SCALE.score(statistics(12, mean=mean, seed=3))
    assert found.score == pytest.approx(expected, abs=0.1)


def test_the_base_itself_is_at_zero_for_every_prompt() -> None:
    found = SCALE.score(BASE)
    assert found.score == pytest.approx(0)
    assert found.parts == pytest.approx(np.zeros(12), abs=1e-6)


def test_images_of_other_prompts_have_a_score_on_the_same_scale() -> None:
    assert SCALE.mean_score(statistics(30, mean=3.0, seed=6)) == pytest.approx(0.75, abs=0.05)


def test_the_parts_tell_which_prompts_are_near() -> None:
    far, near = statistics(12, mean=0.0, seed=4), statistics(12, mean=4.0, seed=5)
    images = tuple(np.concatenate([a[:6], b[6:]]) for a, b in zip(far, near, strict=True))
    found = SCALE.score(images)
    assert found.parts.mean() == pytest.approx(found.score, abs=0.05)
    assert found.parts[:6].max() < found.parts[6:].min()


def test_what_cannot_be_told_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="the dataset has 7 images"):
        StyleScale(BASE, statistics(7, mean=4.0, seed=2))
    with pytest.raises(NotMeasured, match="so close to the base model's own"):
        StyleScale(BASE, statistics(20, mean=0.3, seed=2))
