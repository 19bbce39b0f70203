"""What images lose in an autoencoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from worker.core.bases.load import load_base
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import read_folder
from worker.core.training.round_trip import psnr, worst_round_trips


def test_psnr_is_that_of_the_literature() -> None:
    gray = Image.new("RGB", (8, 8), (100, 100, 100))
    assert psnr(gray, Image.new("RGB", (8, 8), (110, 110, 110))) == pytest.approx(28.13, abs=0.01)
    assert psnr(gray, gray) > 70


@pytest.mark.parametrize("base", ["small_starter", "zimage_folder"])
def test_the_images_that_lose_most_come_first_in_the_size_of_the_training(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    sharp = Image.fromarray(noise)
    (tmp_path / "data").mkdir()
    for number in range(8):
        image = sharp.filter(ImageFilter.GaussianBlur(number))
        image.save(tmp_path / "data" / f"{number}.png")
    images = read_folder(tmp_path / "data")
    loaded = load_base(request.getfixturevalue(base))
    config = TrainConfig(resolution=64)
    found = worst_round_trips(loaded, images, config, tmp_path / "found")
    losses = [loss for loss, _, _ in found]
    assert len(found) == 6
    assert losses == sorted(losses)
    with Image.open(found[0][1]) as before, Image.open(found[0][2]) as after:
        assert before.size == after.size
        assert before.width > before.height
        assert psnr(before, after) == pytest.approx(losses[0])
