"""The bench of overlaps: its looks, what it measures of a pair, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.stack_overlap import (
    LOOKS,
    Seen,
    damage_of,
    is_predicted,
    make_config,
    overlap_of,
    print_table,
    rank_correlation,
    write_images,
)
from bench.trainings import LEAST_STEPS
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.lora_files.loaded import LoadedAdapter

SHAPES = {f"unet.down_blocks.{number}.proj_in": (16, 16) for number in range(4)}


def rows(damages: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "pair": ["chalk", "lino"],
            "cosine": number / 20,
            "highest": 0.5,
            "alike": 0.25,
            "outputs": 0.1,
            "lost_subject": damage,
            "lost_style": damage,
        }
        for number, damage in enumerate(damages)
    ]


def test_a_look_is_its_style_under_another_name(tmp_path: Path) -> None:
    write_images(LOOKS["chalk-negative"], tmp_path)
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first == {"file_name": "fox.png", "text": "fox, chalk-negative style"}
    assert len(lines) == len(list(tmp_path.glob("*.png"))) == 24
    with Image.open(tmp_path / "fox.png") as image:
        assert image.getpixel((0, 0))[0] > 128  # type: ignore[index]  # a dark ground, negated
    config = make_config(LOOKS["lino-again"], resolution=128, images=24, scale=0.01)
    assert (config.steps, config.seed, config.rank, config.alpha) == (LEAST_STEPS, 1, 8, 8.0)


def test_a_pair_is_measured_by_its_weights_and_by_what_is_seen() -> None:
    one, two = (
        LoadedAdapter(str(seed), random_adapter(SHAPES, seed=seed, choose=bool)) for seed in (1, 2)
    )
    assert overlap_of(one, one) == pytest.approx(
        {"cosine": 1, "highest": 1, "alike": 1, "inputs": 1, "outputs": 1}, abs=1e-3
    )
    assert abs(overlap_of(one, two)["cosine"]) < 0.3
    both = Seen([0.5, 0.1], np.array([[1.0, 0.0], [1.0, 0.0]]))
    alone = [
        Seen([0.9, 0.9], np.array([[1.0, 0.0], [1.0, 0.0]])),
        Seen([0.6, 0.4], np.array([[0.0, 1.0], [1.0, 0.0]])),
    ]
    found = damage_of(both, alone)
    assert (found["lost_subject"], found["lost_style"]) == (pytest.approx(0.2), pytest.approx(0.5))


def test_weights_are_suggested_only_if_the_overlap_predicts_both_damages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 2, 3], [3, 2, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [5, 5]) == 0
    growing = [0.01 * number for number in range(12)]
    assert is_predicted(rows(growing))
    assert not is_predicted(rows(growing[:9]))
    assert not is_predicted(rows(growing[::-1]))
    print_table(rows(growing[:2]))
    printed = capsys.readouterr().out.splitlines()
    assert printed[2] == "| chalk + lino | 0.00 | 0.50 | 25% | +0.00 | 0.00 |"
    assert printed[-1] == "Over 2 pairs the overlap does not predict the damage."
