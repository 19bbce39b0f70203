"""The look of images, and how far looks are apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from worker.core.eyes import open_eyes
from worker.core.likeness import FEATURES, distances, measure_looks, pack, unpack


def drawn(shape: str, ground: str, ink: str, width: int) -> Image.Image:
    image = Image.new("RGB", (96, 96), ground)
    draw = ImageDraw.Draw(image)
    box = (20, 20, 76, 76)
    outline = {"outline": ink, "width": width}
    if shape == "circle":
        draw.ellipse(box, **outline)
    else:
        draw.rectangle(box, **outline)
    return image


def test_images_of_one_style_are_nearer_than_those_of_one_subject() -> None:
    styles = [("white", "black", 3), ("navy", "yellow", 14)]
    images = [drawn(shape, *style) for style in styles for shape in ("circle", "square")]
    looks = measure_looks(open_eyes(device="cpu"), images)
    assert looks.shape == (4, FEATURES)
    away = distances(looks, looks)
    assert away.diagonal() == pytest.approx(0, abs=0.01)
    assert max(away[0, 1], away[2, 3]) < min(away[0, 2], away[1, 3])


def test_a_packed_look_is_nearly_the_same_and_there_may_be_none() -> None:
    look = np.linspace(-3, 3, FEATURES, dtype=np.float32)
    assert len(pack(look)) == 2 * FEATURES
    assert unpack([pack(look), pack(-look)])[1] == pytest.approx(-look, abs=0.002)
    assert unpack([]).shape == (0, FEATURES)
    assert distances(unpack([pack(look)]), unpack([])).shape == (1, 0)
