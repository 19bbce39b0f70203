"""What images lose in the autoencoder of a base, which a training on it cannot learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from worker.core.bases.load import LoadedBase
from worker.core.evaluation.drawing import through_autoencoder
from worker.core.training.config import TrainConfig
from worker.core.training.data.buckets import Size, crop_to_bucket, fit
from worker.core.training.data.images import TrainingImage, image_size, open_image
from worker.core.training.prepare import resolution_of

SHOWN = 6
SMALLEST_ERROR = 1e-3  # of a mean squared error of 8 bits; equal images have 78 dB

RoundTrip = tuple[float, Path, Path]
"""The PSNR in dB, and the files of the image before and after."""


def worst_round_trips(
    base: LoadedBase, images: Sequence[TrainingImage], config: TrainConfig, folder: Path
) -> list[RoundTrip]:
    """The images that lose most, cut and scaled as for a training; they are written to `folder`.

    Raises DatasetError.
    """
    worst: list[tuple[float, Image.Image, Image.Image]] = []
    side, step = resolution_of(config, base), base.info.family.facts.options.side_step
    for image in images:
        size = Size(*image_size(image))
        fitted = fit(
            size, side, squares=not config.aspect_buckets, focus=image.focus, side_step=step
        )
        before = crop_to_bucket(fitted, open_image(image))
        after = through_autoencoder(base.vae, before)
        worst = sorted([*worst, (psnr(before, after), before, after)], key=lambda one: one[0])
        del worst[SHOWN:]
    folder.mkdir(parents=True)
    found = []
    for place, (loss, before, after) in enumerate(worst):
        paths = [folder / f"{place}-{name}.png" for name in ("before", "after")]
        before.save(paths[0])
        after.save(paths[1])
        found.append((loss, paths[0], paths[1]))
    return found


def psnr(one: Image.Image, other: Image.Image) -> float:
    """The peak signal-to-noise ratio of two images of 8 bits, in dB; higher is closer."""
    error = np.mean((np.asarray(one, dtype=np.float32) - np.asarray(other)) ** 2)
    return 10 * math.log10(255**2 / max(float(error), SMALLEST_ERROR))
