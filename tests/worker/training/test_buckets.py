import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.core.training.data import buckets as buckets_module
from worker.core.training.data.buckets import MAX_ASPECT, Size, buckets, crop_to_bucket, fit


@pytest.mark.parametrize("step", [8, 16])
@pytest.mark.parametrize("resolution", [32, 64, 128, 192, 512, 768, 1024])
def test_buckets_have_at_most_the_area_of_the_square(resolution: int, step: int) -> None:
    for size in buckets(resolution, step):
        assert size.width % step == size.height % step == 0
        assert size.width * size.height <= resolution**2
        assert 1 / MAX_ASPECT <= size.aspect <= MAX_ASPECT
    assert Size(resolution, resolution) in buckets(resolution, step)


def test_a_wide_picture_gets_a_wide_bucket_and_a_tall_one_a_tall() -> None:
    wide, tall = fit(Size(1600, 900), 512).bucket, fit(Size(900, 1600), 512).bucket
    assert wide.aspect > 1.5
    assert (tall.width, tall.height) == (wide.height, wide.width)


@given(st.integers(1, 5_000), st.integers(1, 5_000), st.sampled_from([32, 64, 512]))
def test_every_picture_covers_its_bucket(width: int, height: int, resolution: int) -> None:
    fitted = fit(Size(width, height), resolution)
    assert fitted.left >= 0
    assert fitted.top >= 0
    assert fitted.scaled.width >= fitted.left + fitted.bucket.width
    assert fitted.scaled.height >= fitted.top + fitted.bucket.height


def test_the_middle_of_a_picture_is_kept() -> None:
    picture = Image.new("RGB", (300, 20), "black")
    picture.paste((255, 0, 0), (140, 0, 160, 20))
    fitted = fit(Size(300, 20), 64)
    cut = crop_to_bucket(fitted, picture)
    assert cut.size == (fitted.bucket.width, fitted.bucket.height)
    assert cut.getpixel((cut.width // 2, cut.height // 2)) == (255, 0, 0)


@given(
    st.integers(1, 5_000),
    st.integers(1, 5_000),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.booleans(),
)
def test_a_focus_moves_the_crop_inside_the_picture(
    width: int, height: int, focus: tuple[float, float], squares: bool
) -> None:
    fitted = fit(Size(width, height), 64, squares=squares, focus=focus)
    center = fit(Size(width, height), 64, squares=squares)
    assert 0 <= fitted.left <= fitted.scaled.width - fitted.bucket.width
    assert 0 <= fitted.top <= fitted.scaled.height - fitted.bucket.height
    assert (fitted.bucket, fitted.scaled) == (center.bucket, center.scaled)
    assert center == fit(Size(width, height), 64, squares=squares, focus=(0.5, 0.5))
    assert fitted.is_centered == (fitted == center)


def test_the_focus_is_in_the_middle_of_the_crop_where_the_edges_allow_it() -> None:
    lefts = [
        fit(Size(400, 100), 64, squares=True, focus=(x, 0.5)).left for x in (0, 0.1, 0.4, 0.9, 1)
    ]
    assert lefts == [0, 0, 70, 192, 192]  # of 256 - 64


@pytest.mark.parametrize("size", [(400_000, 3), (3, 400_000)])
def test_a_picture_like_a_thread_needs_little_memory(size: tuple[int, int]) -> None:
    fitted = fit(Size(*size), 512)
    assert fitted.scaled.width * fitted.scaled.height > 10**10
    cut = crop_to_bucket(fitted, Image.new("RGB", size, "green"))
    assert cut.size == (fitted.bucket.width, fitted.bucket.height)


@pytest.mark.parametrize("size", [(333, 21), (21, 333), (97, 97)])
def test_scaling_only_what_is_kept_gives_the_same_picture(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
    picture, fitted = Image.fromarray(noise), fit(Size(*size), 64)
    whole = np.asarray(crop_to_bucket(fitted, picture), dtype=int)
    monkeypatch.setattr(buckets_module, "MAX_SCALED_PIXELS", 0)
    kept = np.asarray(crop_to_bucket(fitted, picture), dtype=int)
    assert np.abs(kept - whole).max() <= 2  # of 255: rounded between the two passes
