"""The distance of images to a style, measured from pixels alone.

Used to check that an adapter does what it was trained for. Subjects differ between renders and
references, so images are not compared one by one: each set is described by statistics that depend
little on the subject, and the two descriptions are compared, aspect by aspect:

- ground: the color of the margin, and how flat it is
- color: quantiles of lightness and of two opponent colors inside the subject
- contour: how light and how vivid rings along the subject's outline are, from outside to inside
- detail: how much of each octave of detail is bright and how much is dark

A drawing without lines has the right ground and often the right colors, so the aspect that is
farthest away counts, not their mean. Each statistic is measured in units of its spread among the
references: a distance of about 1 means “as far as one reference image is from the mean”.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Values = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SIZE = 128
MARGIN = 4
"""Pixels at the border counted as ground; subjects rarely reach them."""

GROUND_TOLERANCE = 0.14
"""A pixel belongs to the subject if a channel is farther than this from the ground's color."""

RINGS = (-4, -2, 0, 1, 2, 3, 4, 6, 9, 13, SIZE)
"""Limits of the rings around the subject's outline, in pixels inwards."""

OCTAVES = 4

SPREAD_FLOOR = 0.04
"""Minimum spread in color units of [0, 1]: an invisible shade must not count as far."""

CEILING = 12.0
"""Maximum of each aspect, so that a broken image is not infinitely far."""

MAX_DISTANCE = 0.95
MAX_RATIO = 0.45
"""The distance is a tenth below that of the nearest control; the table is in `README.md` here."""

REMEMBERED = 128
"""Descriptions kept: those of the references serve every set that is compared with them."""

OPPONENTS = np.array([[0.299, 0.587, 0.114], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]], dtype=np.float32)
"""Lightness, red against green, yellow against blue."""


class StyleError(Exception):
    """The sets cannot be compared; the message says what is missing."""


@dataclass(frozen=True)
class StyleVerdict:
    """The distance of images from a style without the adapter and with it."""

    distance_before: float
    distance_after: float
    ratio: float
    passed: bool

    def __str__(self) -> str:
        verdict = "in the style" if self.passed else "not in the style"
        return (
            f"distance to the style {self.distance_before:.2f} without the adapter, "
            f"{self.distance_after:.2f} with it (ratio {self.ratio:.2f}): {verdict}"
        )


def looks_like_style(
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
    references: Sequence[Image.Image],
) -> StyleVerdict:
    """A verdict that passes when `after` is close to the style of `references`, and much closer
    than `before`."""
    distance_before = style_distance(before, references)
    distance_after = style_distance(after, references)
    ratio = distance_after / max(distance_before, 1e-6)
    passed = distance_after <= MAX_DISTANCE and ratio <= MAX_RATIO
    return StyleVerdict(distance_before, distance_after, ratio, passed)


def style_distance(images: Sequence[Image.Image], references: Sequence[Image.Image]) -> float:
    """The distance between two sets of images as styles, 0 for identical sets.

    Raises `StyleError` for an empty set, or for a single reference, which has no spread.
    """
    return max(style_gaps(images, references).values())


def style_gaps(
    images: Sequence[Image.Image], references: Sequence[Image.Image]
) -> dict[str, float]:
    """The distance in each aspect: ground, color, contour and detail.

    References are first reduced to the size of the smallest image, because a base that works at
    64 px cannot have the detail of 128 px.
    """
    if not images:
        raise StyleError("There are no images to compare with the style. Give at least one.")
    if len(references) < 2:
        raise StyleError("A style needs at least two reference images.")
    side = min(SIZE, *(min(image.size) for image in images))
    measured = [_describe(image, side) for image in images]
    expected = [_describe(image, side) for image in references]
    gaps = {}
    for aspect in expected[0]:
        target = np.stack([description[aspect] for description in expected])
        mean = np.stack([description[aspect] for description in measured]).mean(axis=0)
        spread = np.maximum(target.std(axis=0), SPREAD_FLOOR)
        gap = float(np.sqrt(np.mean(((mean - target.mean(axis=0)) / spread) ** 2)))
        gaps[aspect] = min(gap, CEILING)
    return gaps


def _describe(image: Image.Image, side: int) -> dict[str, Values]:
    """The statistics of one image, one vector per aspect; colors in [0, 1]."""
    small = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    if side < SIZE:
        small = small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return _describe_pixels(small.tobytes())


@lru_cache(maxsize=REMEMBERED)
def _describe_pixels(rgb: bytes) -> dict[str, Values]:
    """The statistics of an image of SIZE x SIZE; callers only read them."""
    pixels = np.frombuffer(rgb, dtype=np.uint8).reshape(SIZE, SIZE, 3).astype(np.float32) / 255
    margin = _margin(pixels)
    ground = np.median(margin, axis=0)
    inside = _silhouette(np.abs(pixels - ground).max(axis=-1) > GROUND_TOLERANCE)
    return {
        "ground": np.concatenate([ground, margin.std(axis=0)]),
        "color": _color(pixels, inside),
        "contour": _contour(pixels, inside, ground),
        "detail": _detail(pixels, inside),
    }


def _margin(pixels: Values) -> Values:
    """The pixels near the border, (n, 3)."""
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    return np.asarray(pixels[~inner])


def _silhouette(subject: Mask) -> Mask:
    """The subject with its holes filled: everything that the border does not lead to."""
    framed = Image.fromarray(np.pad(subject, 1).astype(np.uint8) * 255)
    ImageDraw.floodfill(framed, (0, 0), 128)
    return np.asarray(np.asarray(framed)[1:-1, 1:-1] != 128)


def _color(pixels: Values, inside: Mask) -> Values:
    """Five quantiles of lightness and of each opponent color inside the subject."""
    colors = pixels[inside] if inside.any() else pixels.reshape(-1, 3)
    quantiles = np.quantile(colors @ OPPONENTS.T, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    return np.asarray(quantiles.ravel(), dtype=np.float32)


def _contour(pixels: Values, inside: Mask, ground: Values) -> Values:
    """Of each ring: lightness, its spread, vividness (max minus min); the ground if it is empty."""
    depth = _depth(inside)
    statistics = []
    for low, high in pairwise(RINGS):
        ring = pixels[(depth >= low) & (depth < high)]
        ring = ring if len(ring) else ground[None]
        light = ring @ OPPONENTS[0]
        statistics += [light.mean(), light.std(), np.ptp(ring, axis=1).mean()]
    return np.array(statistics, dtype=np.float32)


def _depth(inside: Mask) -> NDArray[np.intp]:
    """The depth of each pixel in the outline, in pixels: 0 at its inner edge, negative outside."""
    depth = np.where(inside, SIZE - 1, -SIZE)
    for sign, region in ((1, inside), (-1, ~inside)):
        left = region
        for step in range(max(RINGS[-2], -RINGS[0]) + 1):
            shrunk = _shrink(left)
            depth[left & ~shrunk] = step if sign > 0 else -1 - step
            left = shrunk
    return depth


def _shrink(region: Mask) -> Mask:
    """The pixels whose neighbors are all in the region; nothing is beyond the image."""
    rows = np.pad(region, ((1, 1), (0, 0)), constant_values=True)
    rows = rows[:-2] & rows[1:-1] & rows[2:]
    columns = np.pad(rows, ((0, 0), (1, 1)), constant_values=True)
    return np.asarray(columns[:, :-2] & columns[:, 1:-1] & columns[:, 2:])


def _detail(pixels: Values, inside: Mask) -> Values:
    """Of each octave inside the subject: bright and dark lightness, and the opponent colors."""
    where = inside if inside.any() else ~inside
    statistics = []
    bands: Values = pixels @ OPPONENTS.T
    for _ in range(OCTAVES):
        half = _halve(bands)
        octave = (bands - half.repeat(2, axis=0).repeat(2, axis=1))[where]
        light = octave[:, 0]
        statistics += [np.maximum(light, 0).mean(), np.maximum(-light, 0).mean()]
        statistics += [*np.abs(octave[:, 1:]).mean(axis=0), *np.quantile(light, [0.05, 0.95])]
        bands, where = half, _halve(where[..., None].astype(np.float32))[..., 0] >= 0.5
        if not where.any():
            where = np.ones_like(where)
    # Detail is a small part of lightness: the spread floor must not cover it.
    return 4 * np.array(statistics, dtype=np.float32)


def _halve(values: Values) -> Values:
    """(height, width, n) averaged over blocks of 2 x 2."""
    height, width, bands = values.shape
    return np.asarray(values.reshape(height // 2, 2, width // 2, 2, bands).mean(axis=(1, 3)))
