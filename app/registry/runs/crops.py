"""Preview of how training will crop the images of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from app.registry.tables.datasets import Image
from worker.core.training.data.buckets import USUAL_SIDE_STEP, Size, fit

SHOWN = 60


@dataclass(frozen=True)
class Crop:
    """An image and the part of it that is kept, in image pixels."""

    image: Image
    left: float
    top: float
    width: float
    height: float
    bucket: Size

    @property
    def kept(self) -> float:
        """Share of the image that is trained on, 0 to 1."""
        return self.width * self.height / (self.image.width * self.image.height)


@dataclass(frozen=True)
class Crops:
    """The crops of a dataset, the strongest first, and the number of images per bucket."""

    shown: list[Crop]
    total: int
    buckets: list[tuple[Size, int]]


def crop_of(
    image: Image, resolution: int, *, squares: bool, side_step: int = USUAL_SIDE_STEP
) -> Crop:
    """The crop that training makes: scaled to cover its bucket, then cropped around its focus."""
    size = Size(image.width, image.height)
    fitted = fit(size, resolution, squares=squares, focus=image.focus, side_step=side_step)
    left, top, right, bottom = fitted.crop_box
    return Crop(image, left, top, right - left, bottom - top, fitted.bucket)


def crops_of(
    images: Iterable[Image], resolution: int, *, squares: bool, side_step: int = USUAL_SIDE_STEP
) -> Crops:
    """All crops of a dataset at a training resolution of `resolution` pixels."""
    crops = [crop_of(one, resolution, squares=squares, side_step=side_step) for one in images]
    counted = Counter(crop.bucket for crop in crops)
    return Crops(
        shown=sorted(crops, key=lambda crop: crop.kept)[:SHOWN],
        total=len(crops),
        buckets=sorted(counted.items(), key=lambda pair: -pair[1]),
    )
