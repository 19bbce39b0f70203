"""Compares embeddings, and names images by the texts that are closest to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.core.eyes.interface import Embeddings, Eyes, EyesError, Guess

TOP = 5


def similarity(first: Embeddings, second: Embeddings) -> NDArray[np.float32]:
    """Cosines of every row of `first` to every row of `second`, (n, m), in [-1, 1]."""
    if first.shape[1] != second.shape[1]:
        raise EyesError(
            f"Embeddings of {first.shape[1]} and {second.shape[1]} dimensions cannot be compared. "
            "Embed both with the same eyes."
        )
    return np.asarray(np.clip(first @ second.T, -1, 1), dtype=np.float32)


def name_images(
    eyes: Eyes,
    images: Sequence[Image.Image],
    candidates: Sequence[str] | None = None,
    *,
    top: int = TOP,
) -> list[list[Guess]]:
    """For each image the `top` likeliest of the candidates, best first.

    `candidates`: texts that the eyes know; without them all names of the eyes. Confidences add up
    to 1 over all candidates: an image that shows none of them still gets the closest one, usually
    with a low confidence. Raises EyesError.
    """
    names = list(dict.fromkeys(eyes.names if candidates is None else candidates))
    if not names:
        raise EyesError(
            f"{eyes.title} has no names of its own. Give candidates: what the images may show."
            if candidates is None
            else "There are no candidates. Give at least one text."
        )
    points = eyes.embed_texts(names)
    cosines = similarity(eyes.embed_images(images), points)
    confidences = softmax(cosines * eyes.scale)
    order = np.argsort(-confidences, axis=1, kind="stable")[:, : max(1, top)]
    return [
        [Guess(names[index], float(row[index])) for index in ranked]
        for ranked, row in zip(order, confidences, strict=True)
    ]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
