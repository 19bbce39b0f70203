from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageOps

from worker.core.starter.style import StyleError, looks_like_style, style_distance

Pictures = Sequence[Image.Image]
BOARD = (38, 66, 58)


def test_chalk_pictures_of_other_subjects_are_in_the_style(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    verdict = looks_like_style(base_renders, held_out_chalk, example_pictures)
    assert verdict.passed
    assert verdict.distance_after < 0.6


def test_renders_of_a_trained_adapter_are_in_the_style(
    base_renders: Pictures, trained_renders: Pictures, example_pictures: Pictures
) -> None:
    verdict = looks_like_style(base_renders, trained_renders, example_pictures)
    assert verdict.passed, str(verdict)


def test_renders_of_the_base_are_not_in_the_style(
    base_renders: Pictures, example_pictures: Pictures
) -> None:
    verdict = looks_like_style(base_renders, base_renders, example_pictures)
    assert not verdict.passed
    assert verdict.distance_after > 4


def test_a_plain_green_board_is_not_in_the_style(
    base_renders: Pictures, example_pictures: Pictures
) -> None:
    boards = [Image.new("RGB", (64, 64), BOARD)] * 5
    assert not looks_like_style(base_renders, boards, example_pictures).passed


def test_chalk_with_inverted_colors_is_not_in_the_style(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    inverted = [ImageOps.invert(picture) for picture in held_out_chalk]
    assert not looks_like_style(base_renders, inverted, example_pictures).passed


def test_noise_in_the_right_colors_is_not_in_the_style(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    rng = np.random.default_rng(0)
    shuffled = []
    for picture in held_out_chalk:
        pixels = np.asarray(picture.resize((64, 64))).reshape(-1, 3)
        shuffled.append(Image.fromarray(rng.permutation(pixels).reshape(64, 64, 3)))
    assert not looks_like_style(base_renders, shuffled, example_pictures).passed


def test_another_style_on_white_is_not_chalk(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    ink = [ImageOps.invert(p.convert("L")).convert("RGB") for p in held_out_chalk]
    assert not looks_like_style(base_renders, ink, example_pictures).passed


def test_pictures_already_in_the_style_cannot_be_made_more_so(
    held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    assert not looks_like_style(held_out_chalk, held_out_chalk, example_pictures).passed


def test_the_same_pictures_are_at_no_distance(example_pictures: Pictures) -> None:
    assert style_distance(example_pictures, example_pictures) == pytest.approx(0, abs=1e-6)


def test_distance_grows_as_pictures_fade_into_another_style(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    def mixed(share: float) -> list[Image.Image]:
        return [
            Image.blend(chalk.resize((64, 64), Image.Resampling.BOX), base, share)
            for chalk, base in zip(held_out_chalk, base_renders, strict=False)
        ]

    distances = [style_distance(mixed(share), example_pictures) for share in (0, 0.3, 0.6, 1)]
    assert distances == sorted(distances)


def test_nothing_to_compare_is_said_in_a_sentence(example_pictures: Pictures) -> None:
    with pytest.raises(StyleError, match="no images"):
        style_distance([], example_pictures)
    with pytest.raises(StyleError, match="at least two"):
        style_distance(example_pictures, example_pictures[:1])


def test_a_verdict_reads_as_a_sentence(
    base_renders: Pictures, held_out_chalk: Pictures, example_pictures: Pictures
) -> None:
    verdict = looks_like_style(base_renders, held_out_chalk, example_pictures)
    assert "in the style" in str(verdict)
    assert verdict.ratio == pytest.approx(verdict.distance_after / verdict.distance_before)
