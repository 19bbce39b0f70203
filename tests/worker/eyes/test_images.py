from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from worker.core.eyes.images import as_rgb, check_images, square
from worker.core.eyes.interface import EyesError, check_texts


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "I;16", "F"])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (128, 128), (2000, 1500)])
def test_any_mode_and_size_becomes_a_square(mode: str, size: tuple[int, int]) -> None:
    pixels = square(Image.new(mode, size), 128)
    assert pixels.shape == (3, 128, 128)
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_transparent_parts_are_white() -> None:
    assert as_rgb(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert as_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_gray_of_16_bits_keeps_its_shades() -> None:
    deep = Image.fromarray(np.array([[0, 32768], [65535, 0]], dtype=np.uint16))
    assert [as_rgb(deep).getpixel((x, y))[0] for x, y in ((0, 0), (1, 0), (0, 1))] == [0, 127, 255]  # type: ignore[index]


def test_a_wide_image_stays_whole_between_borders_of_its_edge_color() -> None:
    wide = Image.new("RGB", (200, 100), (10, 200, 30))
    wide.paste((250, 0, 0), (80, 30, 120, 70))
    pixels = square(wide, 128)
    assert np.allclose(pixels[:, 2, 64], np.array([10, 200, 30]) / 255)
    assert np.allclose(pixels[:, 64, 64], np.array([250, 0, 0]) / 255)


def test_a_strip_without_anything_to_see_is_refused() -> None:
    with pytest.raises(EyesError, match="Image 2 of 2 is 900 × 3 pixels"):
        check_images([Image.new("RGB", (9, 9)), Image.new("RGB", (900, 3))])


def test_no_images_and_no_texts_are_refused() -> None:
    with pytest.raises(EyesError, match="no images"):
        check_images([])
    with pytest.raises(EyesError, match="no images"):
        check_images(Image.new("RGB", (9, 9)))  # type: ignore[arg-type]
    with pytest.raises(EyesError, match="no texts"):
        check_texts([])
    with pytest.raises(EyesError, match="no texts"):
        check_texts("cat")
    with pytest.raises(EyesError, match="Text 2 of 2 is empty"):
        check_texts(["cat", "  "])
