"""Aspect-ratio buckets: images keep their shape instead of being cropped to squares.

As in NovelAI's "Aspect Ratio Bucketing" (2022): all buckets have about the area of the training
square, and a batch holds images of one bucket only.
"""

from dataclasses import dataclass
from functools import cache
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_ASPECT = 2.0
USUAL_SIDE_STEP = 8
CENTER = (0.5, 0.5)
MAX_SCALED_PIXELS = 2**25  # 100 MB; above it, only the cropped part is scaled


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width / self.height


@dataclass(frozen=True, slots=True)
class Fit:
    """The fit of an image to its bucket: scaled to cover it, then cropped."""

    source: Size
    scaled: Size
    left: int
    top: int
    bucket: Size

    @property
    def is_centered(self) -> bool:
        """True when the middle of the image is kept."""
        return (self.left, self.top) == _corner(self.scaled, self.bucket, CENTER)

    @property
    def crop_box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop in the original image's pixels."""
        across = self.source.width / self.scaled.width
        down = self.source.height / self.scaled.height
        right = min(float(self.source.width), (self.left + self.bucket.width) * across)
        bottom = min(float(self.source.height), (self.top + self.bucket.height) * down)
        return (self.left * across, self.top * down, right, bottom)


def bucket_step(resolution: int, side_step: int = USUAL_SIDE_STEP) -> int:
    """The step between bucket sides in pixels: an eighth of the resolution, up to 64."""
    return max(side_step, min(64, resolution // 8 // side_step * side_step))


@cache
def buckets(resolution: int, side_step: int = USUAL_SIDE_STEP) -> list[Size]:
    """All buckets for a resolution in pixels, from tall to wide; sides are multiples of
    `side_step`, as the resolution is."""
    step, area = bucket_step(resolution, side_step), resolution * resolution
    found = {Size(resolution, resolution)}
    for long in range(resolution, int(resolution * MAX_ASPECT**0.5) + step, step):
        short = area // long // step * step
        if short and long / short <= MAX_ASPECT:
            found |= {Size(long, short), Size(short, long)}
    return sorted(found, key=lambda size: size.aspect)


def fit(
    source: Size,
    resolution: int,
    *,
    squares: bool = False,
    focus: tuple[float, float] | None = None,
    side_step: int = USUAL_SIDE_STEP,
) -> Fit:
    """The fit of an image of this size in the bucket of the closest shape, or in the square.

    `focus`: the point of the image (x, y), each 0 to 1, in the middle of the crop, or as near to it
    as the image's edges allow; None: the center.
    """
    choice = [Size(resolution, resolution)] if squares else buckets(resolution, side_step)
    bucket = min(choice, key=lambda size: _aspect_distance(size.aspect, source.aspect))
    scale = max(bucket.width / source.width, bucket.height / source.height)
    scaled = Size(
        max(bucket.width, round(source.width * scale)),
        max(bucket.height, round(source.height * scale)),
    )
    left, top = _corner(scaled, bucket, focus or CENTER)
    return Fit(source, scaled, left, top, bucket)


def _corner(scaled: Size, bucket: Size, focus: tuple[float, float]) -> tuple[int, int]:
    """Left and top of the crop whose middle is at the focus, moved inside the image."""

    def start(length: int, kept: int, point: float) -> int:
        return max(0, min(length - kept, floor(length * point - kept / 2)))

    return (
        start(scaled.width, bucket.width, focus[0]),
        start(scaled.height, bucket.height, focus[1]),
    )


def crop_to_bucket(fitted: Fit, image: "Image.Image") -> "Image.Image":
    """Scale and crop an image as its fit says."""
    from PIL import Image  # the web pages import this module for its geometry, without PIL

    if fitted.scaled.width * fitted.scaled.height > MAX_SCALED_PIXELS:
        return image.resize(
            (fitted.bucket.width, fitted.bucket.height), Image.Resampling.LANCZOS, fitted.crop_box
        )
    scaled = image.resize((fitted.scaled.width, fitted.scaled.height), Image.Resampling.LANCZOS)
    right, bottom = fitted.left + fitted.bucket.width, fitted.top + fitted.bucket.height
    return scaled.crop((fitted.left, fitted.top, right, bottom))


def _aspect_distance(one: float, other: float) -> float:
    """The ratio of two aspects (1 or more), the same for 2:1 and 1:2."""
    return max(one / other, other / one)
