"""The bench of styles like this: its plans, looks drawn by lot, and how places are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.likeness import (
    PLANS,
    SHARING,
    STYLES,
    Look,
    gaps,
    pixel_statistics,
    places,
    trigger,
    weight_cosines,
)
from tests.worker.lora_files.test_sketch import made
from worker.core.lora_files.canonical import save_adapter

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<circle cx="16" cy="16" r="10" fill="#c33"/></svg>'
)


def test_twenty_styles_have_twins_with_trigger_words_of_their_own() -> None:
    assert (len(STYLES), len(PLANS)) == (20, 40)
    assert len({trigger(*plan) for plan in PLANS.values()}) == 40


def test_looks_by_lot_are_always_the_same_and_some_share_their_colors() -> None:
    first, second, other = (Look.by_lot(number) for number in (0, 1, SHARING))
    assert np.array_equal(first.draw(SVG, seed=1), Look.by_lot(0).draw(SVG, seed=1))
    assert np.array_equal(first.ground, second.ground)
    assert not np.array_equal(first.ground, other.ground)
    statistics = [pixel_statistics(look.draw(SVG, seed=1)) for look in (first, second, other)]
    assert statistics[0].shape == (12,)
    assert not np.allclose(statistics[0], statistics[1])


def test_the_place_of_a_twin_is_counted_among_all_others() -> None:
    names = ["neon, a", "neon, b", "glass, a", "glass, b", "linocut, a"]
    looks = [np.array([[at, 0.0], [at, 9.0]]) for at in (0, 1, 2, 9, 3)]
    away = gaps(looks, looks, 1, 1)
    assert places(names, away) == [1, 1, 4, 2]  # linocut has no twin yet
    assert gaps(looks, looks, 0, 1)[0, 0] == pytest.approx(4.5)


def test_equal_weights_have_a_cosine_of_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_adapter(made(seed), tmp_path / str(seed))
    changes, outputs = weight_cosines([tmp_path / "0", tmp_path / "0", tmp_path / "1"])
    assert (changes[0, 1], outputs[0, 1]) == (pytest.approx(1), pytest.approx(1))
    assert abs(changes[0, 2]) < 0.2
