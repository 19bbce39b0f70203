"""Tells an image that shows nothing: one color, or noise without structure.

The image is reduced to `SIDE` pixels and cut into `PATCHES` by `PATCHES` patches. An image of
something has calm parts and busy ones, in whatever style: the contrast of its patches differs. In
noise, be it of single pixels or of blobs, every part is as busy as every other.
"""

from enum import StrEnum

import numpy as np
from PIL import Image

SIDE = 128
PATCHES = 8
LEAST_CONTRAST = 4.0  # of 255 levels; less is one color
LEAST_VARIATION = 0.42  # of the contrast of patches, relative to its mean; less is noise


class Blank(StrEnum):
    """The kind of an image that shows nothing."""

    ONE_COLOR = "one color"
    NOISE = "noise"


def blank_kind(image: Image.Image) -> Blank | None:
    """The kind of an image that shows nothing; None for an image of something."""
    pixels = reduced(image)
    if pixels.std(axis=(0, 1)).max() < LEAST_CONTRAST:
        return Blank.ONE_COLOR
    return Blank.NOISE if contrast_variation(pixels) < LEAST_VARIATION else None


def reduced(image: Image.Image) -> np.ndarray:
    """The pixels of the reduced image: (SIDE, SIDE, 3), 0 to 255."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def contrast_variation(pixels: np.ndarray) -> float:
    """The standard deviation of the patches' contrast divided by its mean; pixels (side, side, 3).

    The contrast of a patch is the standard deviation of its pixels, averaged over the channels.
    """
    side = SIDE // PATCHES
    patches = pixels.reshape(PATCHES, side, PATCHES, side, 3)
    contrast = patches.std(axis=(1, 3)).mean(axis=-1)
    return float(contrast.std() / contrast.mean())
