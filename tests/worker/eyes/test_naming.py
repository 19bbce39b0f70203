from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from worker.core.eyes.interface import Embeddings, EyesError, UnknownText
from worker.core.eyes.naming import name_images, similarity

COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class ColorEyes:
    """Eyes that see one pixel, and know three words."""

    title = "Color eyes"
    dimensions = 3
    scale = 10.0
    names: tuple[str, ...] = ("red", "green", "blue")

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        pixels = np.array([image.getpixel((0, 0)) for image in images], dtype=np.float32)
        return np.asarray(pixels / np.linalg.norm(pixels, axis=1, keepdims=True))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        if unknown := [text for text in texts if text not in COLORS]:
            raise UnknownText(unknown)
        return np.array([COLORS[text] for text in texts], dtype=np.float32)

    def knows(self, texts: Sequence[str]) -> list[bool]:
        return [text in COLORS for text in texts]


def plain(color: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (4, 4), color)


def test_names_come_best_first_with_confidences_that_add_up() -> None:
    guesses = name_images(ColorEyes(), [plain((250, 90, 10)), plain((0, 0, 9))])
    assert [guess.name for guess in guesses[0]] == ["red", "green", "blue"]
    assert guesses[1][0].name == "blue"
    assert sum(guess.confidence for guess in guesses[0]) == pytest.approx(1)
    assert guesses[0][0].confidence > 0.9


def test_an_undecided_image_gets_a_low_confidence() -> None:
    (guesses,) = name_images(ColorEyes(), [plain((80, 80, 80))])
    assert guesses[0].confidence == pytest.approx(1 / 3, abs=0.01)


def test_only_candidates_are_named_and_each_once() -> None:
    (guesses,) = name_images(ColorEyes(), [plain((250, 90, 10))], ["green", "blue", "green"])
    assert [guess.name for guess in guesses] == ["green", "blue"]


def test_top_limits_the_list() -> None:
    (guesses,) = name_images(ColorEyes(), [plain((1, 2, 3))], top=1)
    assert [guess.name for guess in guesses] == ["blue"]


def test_unknown_candidates_are_named_in_the_error() -> None:
    with pytest.raises(UnknownText, match="“mauve”") as caught:
        name_images(ColorEyes(), [plain((1, 1, 1))], ["red", "mauve"])
    assert caught.value.texts == ("mauve",)


def test_no_candidates_are_an_error_that_says_what_to_give() -> None:
    with pytest.raises(EyesError, match="Give at least one text"):
        name_images(ColorEyes(), [plain((1, 1, 1))], [])
    nameless = ColorEyes()
    nameless.names = ()
    with pytest.raises(EyesError, match="no names of its own"):
        name_images(nameless, [plain((1, 1, 1))])


def test_similarity_is_a_cosine() -> None:
    a = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    assert np.allclose(similarity(a, a), [[1, 0.6], [0.6, 1]])


def test_embeddings_of_different_eyes_are_not_compared() -> None:
    with pytest.raises(EyesError, match="same eyes"):
        similarity(np.ones((1, 2), dtype=np.float32), np.ones((1, 3), dtype=np.float32))
