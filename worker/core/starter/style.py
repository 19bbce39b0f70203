"""The distance of images to a style, measured from pixels alone.

Used to check that an adapter does what it was trained for. Subjects differ between renders and
references, so images are not compared one by one: each set is described by statistics that are
independent of the subject, and the two descriptions are compared. Four groups count equally:

- texture: Gram matrices of fixed random filters (Ustyuzhaninov et al., 2016, "Texture synthesis
using shallow convolutional networks with random filters", arXiv:1606.00021) - color: quantiles of
each channel, and how vivid the colors are - ground: the color of the margin, and how flat it is -
line: how strong edges are, and how much of the image is a bright or a dark ridge

Gram matrices alone cannot tell a style from one close to the base's; the other groups detect
outlines. Each statistic is measured in units of its spread among the references, so a distance of
about 1 means “as far as one reference image is from the mean”.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.floating[Any]]

SIZE = 64
FILTERS = 16
FILTER_SEED = 20_240_601
MARGIN = 3
"""Pixels at the border counted as ground; subjects rarely reach them."""

SPREAD_FLOOR = 0.04
"""Minimum spread in color units of [0, 1]: an invisible shade must not count as far."""

GROUP_CEILING = 12.0
"""Maximum of each group, so that one odd statistic cannot decide alone."""

MAX_DISTANCE = 2.0
MAX_RATIO = 0.45
"""Both limits were set by measurement; the table is in `README.md` next to this file."""


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
    if not images:
        raise StyleError("There are no images to compare with the style. Give at least one.")
    if len(references) < 2:
        raise StyleError("A style needs at least two reference images.")
    measured = [_describe(image) for image in images]
    expected = [_describe(image) for image in references]
    gaps = []
    for group in expected[0]:
        target = np.stack([description[group] for description in expected])
        mean = np.stack([description[group] for description in measured]).mean(axis=0)
        spread = np.maximum(target.std(axis=0), SPREAD_FLOOR)
        gap = float(np.sqrt(np.mean(((mean - target.mean(axis=0)) / spread) ** 2)))
        gaps.append(min(gap, GROUP_CEILING))
    return float(np.mean(gaps))


def _describe(image: Image.Image) -> dict[str, Values]:
    """The statistics of one image, one vector per group; colors in [0, 1]."""
    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32) / 255
    return {
        "texture": _texture(pixels),
        "color": _color(pixels),
        "ground": _ground(pixels),
        "line": _line(pixels),
    }


def _texture(pixels: Values) -> Values:
    """The upper triangles of the filters' Gram matrices at full and half size, flattened."""
    half = pixels.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(1, 3))
    return np.concatenate([_gram(pixels), _gram(half)])


def _gram(pixels: Values) -> Values:
    """Mean products of rectified filter responses; 3 x 3 filters over the centered colors."""
    rng = np.random.default_rng(FILTER_SEED)
    filters = rng.standard_normal((27, FILTERS)).astype(np.float32) / np.sqrt(27)
    windows = np.lib.stride_tricks.sliding_window_view(pixels - 0.5, (3, 3), axis=(0, 1))
    responses = np.maximum(windows.reshape(-1, 27) @ filters, 0)
    gram = responses.T @ responses / len(responses)
    rows, columns = np.triu_indices(FILTERS)
    return np.asarray(np.sqrt(gram[rows, columns]))


def _color(pixels: Values) -> Values:
    """Seven quantiles of each channel, then mean and spread of vividness (max minus min)."""
    quantiles = np.quantile(pixels, [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95], axis=(0, 1))
    vivid = pixels.max(axis=-1) - pixels.min(axis=-1)
    return np.append(quantiles.ravel(), [vivid.mean(), vivid.std()]).astype(np.float32)


def _ground(pixels: Values) -> Values:
    """The margin's median color and its deviation, channel by channel."""
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    margin = pixels[~inside]
    return np.concatenate([np.median(margin, axis=0), margin.std(axis=0)])


def _line(pixels: Values) -> Values:
    """Edge strength (mean, three quantiles), then bright and dark ridges (mean, 90th, 97th)."""
    light = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    edges = np.hypot(*np.gradient(light))
    # A line two pixels wide stands out against the mean of a window seven pixels wide.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(light, 3, mode="edge"), (7, 7))
    ridge = light - windows.mean(axis=(2, 3))
    statistics = [edges.mean(), *np.quantile(edges, [0.5, 0.75, 0.95])]
    for side in (np.maximum(ridge, 0), np.maximum(-ridge, 0)):
        statistics += [side.mean(), *np.quantile(side, [0.9, 0.97])]
    # Lines are a small part of an image; doubling halves the effect of their spread floor.
    return 2 * np.array(statistics, dtype=np.float32)
