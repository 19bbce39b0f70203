"""Measures of an image's pixels: sharpness, perceptual hash and plain ground, with Pillow alone.

The decoder process measures each upload, so nothing of this package is imported here, and no numpy:
its address space is limited. An image is measured as training sees it: upright, on white.
"""

from __future__ import annotations

import math
from operator import mul
from statistics import median
from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageStat

SIDE = 512  # pixels, longest side at which sharpness is measured
REBLUR = 4  # pixels to each side: the 9 of the paper
LEAST_CONTRAST = 16  # of 255: below it there is nothing to measure
LEAST_STEP = 3  # of 255: smaller differences are rounding or noise
STEP_SHARE = 24  # of the contrast: an edge that is wider than this many pixels is none

HASH_PIXELS = 32  # the image is shrunk to this square
HASH_SIDE = 8  # frequencies in each direction: 64 bits
MIRROR = 0x5555_5555_5555_5555  # bits of the frequencies across that are odd: 1, 3, 5 and 7

GROUND_PIXELS = 64  # the image is shrunk to this square
GROUND_BORDER = 3  # pixels of it, an edge all around
GROUND_TOLERANCE = 24  # of 255, in each channel
GROUND_SHARE = 0.8  # of the border, from which on the ground counts as plain

_WAVES = [
    [math.cos(math.pi * wave * (2 * place + 1) / (2 * HASH_PIXELS)) for place in range(HASH_PIXELS)]
    for wave in range(1, HASH_SIDE + 1)
]


def measure(image: Image.Image) -> dict[str, Any]:
    """The measures of an RGB image, by the columns of the table `image_measure`.

    A blank image has neither sharpness nor a hash.
    """
    gray = image.convert("L")
    color, share = plain_ground(image)
    return {
        "sharpness": sharpness(gray),
        "perceptual_hash": f"{perceptual_hash(gray):016x}" if _has_contrast(gray) else None,
        "ground": color,
        "ground_share": share,
    }


def sharpness(gray: Image.Image) -> float | None:
    """The sharpness of an image's edges, 0 to 1; None if it is blank.

    The blur effect of Crété et al., "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric" (SPIE 2007), turned around: the share of the differences
    between neighbors that is lost when the image is blurred once more. It does not depend on how
    many edges there are, so a flat drawing is as sharp as a texture; the variance of the Laplacian,
    which is more usual, puts a sharp flat drawing below a blurred texture. Differences too small
    for an edge are left out.
    """
    gray = _shrunk(gray)
    if not _has_contrast(gray):
        return None
    step = max(LEAST_STEP, _contrast(gray) // STEP_SHARE)
    turned = gray.transpose(Image.Transpose.TRANSPOSE)
    across, down = _kept_edges(gray, step), _kept_edges(turned, step)
    found = [share for share in (across, down) if share is not None]
    return round(min(found), 4) if found else 0.0


def perceptual_hash(gray: Image.Image) -> int:
    """64 bits that change little when the image is scaled, compressed or blurred.

    The lowest frequencies of the discrete cosine transform, compared with their median: Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1.
    """
    side = HASH_PIXELS
    pixels = gray.resize((side, side), Image.Resampling.LANCZOS).tobytes()
    rows = [pixels[side * y : side * (y + 1)] for y in range(side)]
    across = [[sum(map(mul, wave, row)) for row in rows] for wave in _WAVES]
    values = [sum(map(mul, wave, column)) for wave in _WAVES for column in across]
    middle = median(values)
    return sum(1 << bit for bit, value in enumerate(values) if value > middle)


def mirrored_hash(value: int) -> int:
    """About the hash of the mirrored image: at most 10 of its bits differ.

    Mirroring turns the sign of every odd frequency across. The hash compares with the median, which
    is near 0 but not 0, so small frequencies may get another bit.
    """
    return value ^ MIRROR


def plain_ground(image: Image.Image) -> tuple[str | None, float]:
    """The color of the ground as #rrggbb, None if it is not plain; its share of the border."""
    side, edge = GROUND_PIXELS, GROUND_BORDER
    small = image.convert("RGB").resize((side, side), Image.Resampling.BOX, reducing_gap=2)
    inner = side - edge
    border = [
        (0, 0, side, edge),
        (0, inner, side, side),
        (0, edge, edge, inner),
        (inner, edge, side, inner),
    ]
    data = b"".join(small.crop(box).tobytes() for box in border)
    channels = [data[channel::3] for channel in range(3)]
    middle = [int(median(channel)) for channel in channels]
    alike = sum(
        all(
            abs(value - ground) <= GROUND_TOLERANCE
            for value, ground in zip(pixel, middle, strict=True)
        )
        for pixel in zip(*channels, strict=True)
    )
    share = alike * 3 / len(data)
    color = "#" + "".join(f"{value:02x}" for value in middle) if share >= GROUND_SHARE else None
    return color, round(share, 4)


def _shrunk(gray: Image.Image) -> Image.Image:
    if max(gray.size) <= SIDE:
        return gray
    gray = gray.copy()
    gray.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return gray


def _contrast(gray: Image.Image) -> int:
    darkest, lightest = gray.getextrema()
    return int(lightest) - int(darkest)  # type: ignore[arg-type]  # of one channel


def _has_contrast(gray: Image.Image) -> bool:
    return _contrast(gray) >= LEAST_CONTRAST


def _kept_edges(gray: Image.Image, step: int) -> float | None:
    """The share of horizontal differences that another blur takes; None if none is an edge."""
    blurred = gray.filter(ImageFilter.BoxBlur((REBLUR, 0)))
    edges = _differences(gray).point([0] * (step + 1) + list(range(step + 1, 256)))
    lost = ImageChops.subtract(edges, _differences(blurred))
    total = ImageStat.Stat(edges).sum[0]
    return float(ImageStat.Stat(lost).sum[0] / total) if total else None


def _differences(gray: Image.Image) -> Image.Image:
    width, height = gray.size
    return ImageChops.difference(
        gray.crop((1, 0, width, height)), gray.crop((0, 0, width - 1, height))
    )
