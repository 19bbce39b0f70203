"""The style measure on stored images: those of an adapter, of the base, of the other style.

tests/tools/test_style.py draws images that are in a style and controls that nearly are.
"""

from __future__ import annotations

import pytest

from tests.worker.starter.conftest import FIXTURES, Images, cut
from worker.core.starter.examples import CHALKBOARD, EXAMPLES, LINOCUT
from worker.core.starter.style import (
    MAX_DISTANCE,
    StyleError,
    looks_like_style,
    style_distance,
    style_gaps,
)

ByStyle = dict[str, Images]
MARGIN_OF_CONTROLS = 1.2
each_style = pytest.mark.parametrize("key", EXAMPLES)


@pytest.fixture(scope="module")
def full() -> ByStyle:
    """Castle, rocket, house, bicycle and owl by an adapter of the preset Quick at full weight."""
    return {key: cut(FIXTURES / f"{key}_full.webp") for key in EXAMPLES}


@each_style
def test_an_adapter_at_full_weight_is_in_the_style_and_at_half_weight_is_not(
    key: str, base_renders: Images, full: ByStyle, example_images: ByStyle
) -> None:
    half = cut(FIXTURES / f"{key}_half.webp")
    verdict = looks_like_style(base_renders, full[key], example_images[key])
    assert verdict.passed, str(verdict)
    verdict = looks_like_style(base_renders, half, example_images[key])
    assert verdict.distance_after > MARGIN_OF_CONTROLS * MAX_DISTANCE
    assert not verdict.passed


@each_style
def test_the_other_style_and_the_base_are_not_in_the_style(
    key: str, base_renders: Images, full: ByStyle, example_images: ByStyle
) -> None:
    (other,) = EXAMPLES.keys() - {key}
    for images in (full[other], base_renders):
        verdict = looks_like_style(base_renders, images, example_images[key])
        assert not verdict.passed
        assert verdict.distance_after > 2 * MAX_DISTANCE


@each_style
def test_images_already_in_the_style_cannot_be_made_more_so(
    key: str, full: ByStyle, example_images: ByStyle
) -> None:
    same = full[key]
    assert not looks_like_style(same, same, example_images[key]).passed


@each_style
def test_the_same_images_are_at_no_distance(key: str, example_images: ByStyle) -> None:
    same = example_images[key]
    assert style_distance(same, same) == pytest.approx(0, abs=1e-6)


def test_the_aspect_that_is_farthest_decides(full: ByStyle, example_images: ByStyle) -> None:
    images, references = full[LINOCUT.key], example_images[LINOCUT.key]
    gaps = style_gaps(images, references)
    assert set(gaps) == {"ground", "color", "contour", "detail"}
    assert style_distance(images, references) == max(gaps.values())


def test_nothing_to_compare_is_said_in_a_sentence(example_images: ByStyle) -> None:
    references = example_images[CHALKBOARD.key]
    with pytest.raises(StyleError, match="no images"):
        style_distance([], references)
    with pytest.raises(StyleError, match="at least two"):
        style_distance(references, references[:1])


def test_a_verdict_reads_as_a_sentence(
    base_renders: Images, full: ByStyle, example_images: ByStyle
) -> None:
    key = CHALKBOARD.key
    verdict = looks_like_style(base_renders, full[key], example_images[key])
    assert "in the style" in str(verdict)
    assert verdict.ratio == pytest.approx(verdict.distance_after / verdict.distance_before)
