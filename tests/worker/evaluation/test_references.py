"""What candidates are compared with, where a part of it cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from PIL import Image

from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.evaluate import Captioned, Question, References, evaluate
from worker.core.eyes.interface import ChannelStatistics, Embeddings, Eyes

PROMPTS = [f"{name}, ink" for name in "abcdefgh"]
PLAIN = list("abcdefgh")


class Colors:
    """Eyes that see the mean color of an image."""

    def channel_statistics(self, images: Sequence[Image.Image]) -> ChannelStatistics:
        return [np.array([np.asarray(image).mean(axis=(0, 1)) for image in images])]

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        return np.eye(len(images), dtype=np.float32)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        return np.eye(len(texts), dtype=np.float32)

    def knows(self, texts: Sequence[str]) -> list[bool]:
        return [True] * len(texts)


def paint(red: int, count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (red + number, number, 9 - number)) for number in range(count)]


class Painter:
    """A base that paints in the style of the dataset unless the style is asked for."""

    def images(self, _candidate: str | None, prompts: Sequence[str]) -> list[Image.Image]:
        return paint(200 if list(prompts) == PLAIN else 0, len(prompts))

    def through_autoencoder(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        return list(images)


def test_a_style_that_plain_prompts_have_already_leaves_only_that_measure_out() -> None:
    trained = [Captioned(image, "") for image in paint(200, 8)]
    question = Question(PROMPTS, PLAIN, trained, plain=PLAIN)
    references = References(question, drawing=Painter(), eyes=cast("Eyes", Colors()))
    assert [note.partition(":")[0] for note in references.notes] == [
        "The style without the trigger word is not measured"
    ]
    assert references.without_trigger(paint(100, 8)) == (None, 0)
    assert references.style_inside(paint(200, 8)) == pytest.approx(1, abs=0.1)
    assert references.style_inside(paint(200, 7)) is None
    assert references.measure("step 1", paint(200, 8)).style.score > 0.9


def test_without_candidates_there_is_nothing_to_compare() -> None:
    question = Question(PROMPTS, PLAIN, [Captioned(image, "") for image in paint(200, 8)])
    with pytest.raises(EvaluationError, match="at least one adapter"):
        evaluate(question, [], drawing=Painter(), eyes=cast("Eyes", Colors()))
