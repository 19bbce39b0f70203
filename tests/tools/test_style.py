"""The style measure: true images pass, every control fails, for both example styles.

The controls are images that somebody could take for the style by one aspect alone. The table in the
starter's README lists them. tests/worker/starter/test_style.py measures stored images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.worker.starter.conftest import load_base_renders, load_example_images
from tools.examples import chalk, linocut
from tools.examples.drawings import draw_subject, meant_drawing
from tools.examples.planes import MARGIN, SIZE
from tools.starter.artwork import ArtworkSubject, lay_over, render_drawing
from worker.core.starter.examples import CHALKBOARD, EXAMPLES, LINOCUT
from worker.core.starter.style import MAX_DISTANCE, looks_like_style, style_distance

Images = Sequence[Image.Image]
ByStyle = dict[str, list[Image.Image]]
GROUNDS = {CHALKBOARD.key: chalk.BOARD, LINOCUT.key: linocut.PAPER}
HELD_OUT = ("castle", "rocket", "red apple", "house", "frog", "evergreen tree")
SEEN_SIDE = 128
MARGIN_OF_CONTROLS = 1.2
each_style = pytest.mark.parametrize("key", EXAMPLES)


@pytest.fixture(scope="module")
def held_out(subjects: list[ArtworkSubject]) -> list[ArtworkSubject]:
    """Subjects that no example shows."""
    return [subject for subject in subjects if subject.name in HELD_OUT]


@pytest.fixture(scope="module")
def example_images() -> ByStyle:
    return load_example_images()


@pytest.fixture(scope="module")
def true_images(held_out: list[ArtworkSubject]) -> ByStyle:
    """Images as of a perfect adapter: drawings of subjects that the example never shows."""
    return {
        key: [
            draw_subject(example, subject).resize((SEEN_SIDE, SEEN_SIDE), Image.Resampling.BOX)
            for subject in held_out
        ]
        for key, example in EXAMPLES.items()
    }


def flat_images(subjects: list[ArtworkSubject], ground: tuple[int, int, int]) -> list[Image.Image]:
    """The plain drawings on a plain color."""
    return [
        lay_over(render_drawing(meant_drawing(subject), SIZE, margin=MARGIN), ground, SEEN_SIDE)
        for subject in subjects
    ]


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
    key: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    verdict = looks_like_style(load_base_renders(), true_images[key], example_images[key])
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


@each_style
def test_images_of_a_smaller_base_are_compared_at_their_own_size(
    key: str, true_images: ByStyle, example_images: ByStyle
) -> None:
    small = [image.resize((64, 64), Image.Resampling.BOX) for image in true_images[key]]
    assert style_distance(small, example_images[key]) < MAX_DISTANCE
