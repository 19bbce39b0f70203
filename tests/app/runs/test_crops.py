"""The crops that the form of a new run shows."""

from __future__ import annotations

import pytest

from app.registry.runs.crops import SHOWN, crop_of, crops_of
from app.registry.tables.datasets import Image
from worker.core.training.data.buckets import Size, fit


def image(width: int, height: int) -> Image:
    return Image(
        dataset_id=1,
        sha256="a" * 64,
        clean_sha256="b" * 64,
        thumbnail_sha256="c" * 64,
        filename=f"{width}x{height}.png",
        width=width,
        height=height,
        size_bytes=1,
    )


def test_a_square_picture_is_kept_whole() -> None:
    crop = crop_of(image(512, 512), 64, squares=False)
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 0, 512, 512)
    assert crop.kept == 1


@pytest.mark.parametrize(("width", "height"), [(1000, 500), (500, 1000), (333, 777), (64, 4096)])
def test_a_crop_has_the_shape_of_its_bucket_and_lies_in_the_middle(width: int, height: int) -> None:
    for squares in (False, True):
        crop = crop_of(image(width, height), 512, squares=squares)
        assert crop.width / crop.height == pytest.approx(crop.bucket.aspect, rel=0.02)
        assert crop.left >= 0
        assert crop.top >= 0
        assert crop.left + crop.width <= width + 1e-6
        assert crop.top + crop.height <= height + 1e-6
        assert crop.left == pytest.approx((width - crop.width) / 2, abs=width / 100)
        assert crop.top == pytest.approx((height - crop.height) / 2, abs=height / 100)
    assert crop.bucket.aspect == 1


def test_what_loses_most_comes_first_and_sizes_are_counted() -> None:
    found = crops_of([image(512, 512)] * SHOWN + [image(900, 300)], 512, squares=True)
    assert found.total == SHOWN + 1
    assert found.shown[0].image.filename == "900x300.png"
    assert len(found.shown) == SHOWN
    assert [count for _, count in found.buckets] == [SHOWN + 1]


def test_a_focus_moves_the_crop_of_the_preview_as_it_does_in_training() -> None:
    wide = image(1000, 500)
    assert crop_of(wide, 64, squares=True).left == 250
    wide.focus_x, wide.focus_y = 0.9, 0.5
    crop = crop_of(wide, 64, squares=True)
    assert (crop.left, crop.top, crop.kept) == (500, 0, 0.5)
    fitted = fit(Size(1000, 500), 64, squares=True, focus=(0.9, 0.5))
    assert fitted.crop_box == (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
