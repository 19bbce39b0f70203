"""The style measure: true images pass, every control fails, for both example styles.

The controls are images that somebody could take for the style by one aspect alone. The table in the
starter's README lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.worker.starter.conftest import FIXTURES, SEEN_SIDE, cut, flat_images
from worker.core.starter.build.artwork import ArtworkSubject
from worker.core.starter.examples import CHALKBOARD, EXAMPLES, LINOCUT, chalk, linocut
from worker.core.starter.style import (
    MAX_DISTANCE,
    StyleError,
    looks_like_style,
    style_distance,
    style_gaps,
)

Images = Sequence[Image.Image]
ByStyle = dict[str, list[Image.Image]]
GROUNDS = {CHALKBOARD.key: chalk.BOARD, LINOCUT.key: linocut.PAPER}
MARGIN_OF_CONTROLS = 1.2
STORED = sorted(path.name.split("_")[0] for path in FIXTURES.glob("*_full.webp"))
each_style = pytest.mark.parametrize("key", EXAMPLES)


def ground_of(key: str) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in GROUNDS[key])
    return red, green, blue


def shuffled(image: Image.Image) -> Image.Image:
    """The same pixels in random order."""
    pixels = np.asarray(image).reshape(-1, 3)
    mixed = np.random.default_rng(0).permutation(pixels)
    return Image.fromarray(mixed.reshape(image.height, image.width, 3))


def blurred(image: Image.Image) -> Image.Image:
    """The same colors in the same places, without lines."""
    small = image.resize((16, 16), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


CONTROLS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "shuffled": shuffled,
    "inverted": ImageOps.invert,
    "gray": lambda image: ImageOps.grayscale(image).convert("RGB"),
}


@each_style
def test_true_images_of_other_subjects_are_in_the_style(
    key: str, base_renders: Images, true_images: ByStyle, example_images: ByStyle
) -> None:
    verdict = looks_like_style(base_renders, true_images[key], example_images[key])
    assert verdict.passed, str(verdict)
    assert verdict.distance_after < MAX_DISTANCE / MARGIN_OF_CONTROLS


@each_style
@pytest.mark.parametrize("control", CONTROLS)
def test_true_images_changed_in_one_respect_are_not(
    key: str, control: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    changed = [CONTROLS[control](image) for image in true_images[key]]
    assert style_distance(changed, example_images[key]) > MARGIN_OF_CONTROLS * MAX_DISTANCE


@each_style
def test_true_images_without_their_lines_are_not(
    key: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    soft = [blurred(image) for image in true_images[key]]
    assert style_distance(soft, example_images[key]) > MAX_DISTANCE


@each_style
def test_plain_drawings_on_the_ground_of_the_style_are_not_in_it(
    key: str, held_out: list[ArtworkSubject], example_images: ByStyle
) -> None:
    flat = flat_images(held_out, ground_of(key))
    assert style_distance(flat, example_images[key]) > MARGIN_OF_CONTROLS * MAX_DISTANCE


@each_style
@pytest.mark.parametrize("ground", ["own", "white"])
def test_true_images_half_mixed_with_plain_drawings_are_not(
    key: str,
    ground: str,
    held_out: list[ArtworkSubject],
    true_images: ByStyle,
    example_images: ByStyle,
) -> None:
    """As an adapter at half of its weight draws; the nearest of all controls."""
    plain = flat_images(held_out, ground_of(key) if ground == "own" else (255, 255, 255))
    pairs = zip(true_images[key], plain, strict=True)
    mixed = [Image.blend(true, flat, 0.5) for true, flat in pairs]
    assert style_distance(mixed, example_images[key]) > MAX_DISTANCE


@each_style
def test_the_empty_ground_is_not_in_the_style(key: str, example_images: ByStyle) -> None:
    empty = [Image.new("RGB", (SEEN_SIDE, SEEN_SIDE), ground_of(key))] * 5
    assert style_distance(empty, example_images[key]) > MARGIN_OF_CONTROLS * MAX_DISTANCE


@pytest.mark.parametrize("key", STORED)
def test_an_adapter_at_full_weight_is_in_the_style_and_at_half_weight_is_not(
    key: str, base_renders: Images, example_images: ByStyle
) -> None:
    """Images of castle, rocket, house, bicycle and owl by an adapter of the preset Quick."""
    half, full = cut(FIXTURES / f"{key}_half.webp"), cut(FIXTURES / f"{key}_full.webp")
    verdict = looks_like_style(base_renders, full, example_images[key])
    assert verdict.passed, str(verdict)
    verdict = looks_like_style(base_renders, half, example_images[key])
    assert verdict.distance_after > MARGIN_OF_CONTROLS * MAX_DISTANCE
    assert not verdict.passed


@each_style
def test_the_other_style_and_the_base_are_not_in_the_style(
    key: str, base_renders: Images, true_images: ByStyle, example_images: ByStyle
) -> None:
    (other,) = EXAMPLES.keys() - {key}
    for images in (true_images[other], base_renders):
        verdict = looks_like_style(base_renders, images, example_images[key])
        assert not verdict.passed
        assert verdict.distance_after > 2 * MAX_DISTANCE


@each_style
def test_images_already_in_the_style_cannot_be_made_more_so(
    key: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    true = true_images[key]
    assert not looks_like_style(true, true, example_images[key]).passed


@each_style
def test_images_of_a_smaller_base_are_compared_at_their_own_size(
    key: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    small = [image.resize((64, 64), Image.Resampling.BOX) for image in true_images[key]]
    assert style_distance(small, example_images[key]) < MAX_DISTANCE


@each_style
def test_the_same_images_are_at_no_distance(key: str, example_images: ByStyle) -> None:
    same = example_images[key]
    assert style_distance(same, same) == pytest.approx(0, abs=1e-6)


@each_style
def test_distance_grows_as_images_fade_into_plain_drawings(
    key: str, held_out: list[ArtworkSubject], true_images: ByStyle, example_images: ByStyle
) -> None:
    plain = flat_images(held_out, (255, 255, 255))

    def distance(share: float) -> float:
        pairs = zip(true_images[key], plain, strict=True)
        return style_distance([Image.blend(*pair, share) for pair in pairs], example_images[key])

    distances = [distance(share) for share in (0, 0.3, 0.6, 1)]
    assert distances == sorted(distances)


def test_the_aspect_that_is_farthest_decides(true_images: ByStyle, example_images: ByStyle) -> None:
    true, references = true_images[LINOCUT.key], example_images[LINOCUT.key]
    gaps = style_gaps(true, references)
    assert set(gaps) == {"ground", "color", "contour", "detail"}
    assert style_distance(true, references) == max(gaps.values())


def test_nothing_to_compare_is_said_in_a_sentence(example_images: ByStyle) -> None:
    references = example_images[CHALKBOARD.key]
    with pytest.raises(StyleError, match="no images"):
        style_distance([], references)
    with pytest.raises(StyleError, match="at least two"):
        style_distance(references, references[:1])


def test_a_verdict_reads_as_a_sentence(
    base_renders: Images, true_images: ByStyle, example_images: ByStyle
) -> None:
    key = CHALKBOARD.key
    verdict = looks_like_style(base_renders, true_images[key], example_images[key])
    assert "in the style" in str(verdict)
    assert verdict.ratio == pytest.approx(verdict.distance_after / verdict.distance_before)
