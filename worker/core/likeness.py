"""The look of an image as one vector, and how far two looks are apart.

A look is the mean and the deviation of each channel in three early blocks of the embedded eyes
(Li et al. 2017, arXiv:1701.01036, describe a style so); that of several images is the mean of
theirs. The channels come out of the network at nearly the same scale, so they count as they are.
`bench/likeness.py` checks how well this finds a style again. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.core.eyes.interface import Eyes

FEATURES = 320
STORED = np.dtype("<f2")
Looks = NDArray[np.float32]
"""(n, FEATURES)."""


def measure_looks(eyes: Eyes, images: Sequence[Image.Image]) -> Looks:
    """The look of each image, by the embedded eyes. Raises EyesError for none."""
    return np.concatenate(eyes.channel_statistics(images), axis=1)


def pack(vector: NDArray[np.floating]) -> bytes:
    """A vector as little-endian float16."""
    return vector.astype(STORED).tobytes()


def unpack(packed: Sequence[bytes]) -> Looks:
    """Packed vectors of one length as rows."""
    numbers = np.frombuffer(b"".join(packed), dtype=STORED).astype(np.float32)
    return numbers.reshape(len(packed), -1) if packed else np.zeros((0, FEATURES), np.float32)


def distances(looks: Looks, others: Looks) -> Looks:
    """(n, m): the root mean square difference of each look (n, f) to each of the others (m, f)."""
    ends = [np.einsum("ij,ij->i", one, one) for one in (looks, others)]
    squares = ends[0][:, None] + ends[1] - 2 * looks @ others.T
    return np.asarray(np.sqrt(np.maximum(squares, 0) / max(1, looks.shape[1])))
