"""The interface of all eyes, whatever model they see with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings = NDArray[np.float32]
"""(n, dimensions), each row of unit length, so that a product of two is a cosine."""

ChannelStatistics = tuple[NDArray[np.float32], ...]
"""For each of a few blocks (n, 2 × channels): the mean and the deviation of each channel."""


class EyesError(Exception):
    """The eyes cannot do what was asked; the message says what to do."""


class NoTextSide(EyesError):
    """The model sees images only."""


class UnknownText(EyesError):
    """The eyes do not know what these texts mean, and do not pretend to."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        quoted = ", ".join(f"“{text}”" for text in self.texts[:5])
        more = f" and {len(self.texts) - 5} more" if len(self.texts) > 5 else ""
        super().__init__(
            f"The eyes do not know what {quoted}{more} shows. "
            "Use another word, or eyes that read any text, such as a CLIP model."
        )


@dataclass(frozen=True)
class Guess:
    """One possible name of an image."""

    name: str
    confidence: float
    """Probability that this is the name, if one of the candidates is."""


class Eyes(Protocol):
    """A model that turns images, and perhaps texts, into embeddings of one space."""

    @property
    def title(self) -> str:
        """The model's name in messages and tables."""

    @property
    def use(self) -> str:
        """The things that it sees well, and those that it does not, as a sentence."""

    @property
    def dimensions(self) -> int:
        """The length of an embedding."""

    @property
    def scale(self) -> float:
        """The factor by which cosines become logits of calibrated confidences; NoTextSide."""

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates when none are given; empty for eyes that know no list of names."""

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """(n, dimensions) for images of any size and mode. Raises EyesError for none."""

    def channel_statistics(self, images: Sequence[Image.Image]) -> ChannelStatistics:
        """The look of each image, whatever it shows, from early blocks. Raises EyesError."""

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """(n, dimensions). Raises UnknownText, NoTextSide, and EyesError for none or empty ones."""

    def knows(self, texts: Sequence[str]) -> list[bool]:
        """For each text, True when `embed_texts` accepts it. Raises NoTextSide."""


def check_texts(texts: Sequence[str]) -> None:
    """Raise EyesError unless there are texts and none is blank."""
    if isinstance(texts, str) or not texts:
        raise EyesError("There are no texts to embed. Give a list with at least one.")
    for position, text in enumerate(texts, start=1):
        if not text.strip():
            raise EyesError(f"Text {position} of {len(texts)} is empty. Say what it should show.")


def unit_length(vectors: NDArray[Any]) -> Embeddings:
    """Each row divided by its length; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
