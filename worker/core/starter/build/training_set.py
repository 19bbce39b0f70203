"""The training set: every drawing at 64 px on plain backgrounds, with captions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker.core.starter.build.artwork import (
    BACKGROUNDS,
    ArtworkSubject,
    lay_over,
    render_drawing,
    write_caption,
)

SIZE = 64
RENDER_SIZE = 128
SIZE_JITTER = (0.84, 0.90)
"""Side of the drawing as a share of the image. No flips or shifts: with little time to train, more
variety costs sharpness."""


@dataclass(frozen=True)
class TrainingSet:
    """The images and captions that all stages learn from."""

    pixels: Tensor
    """(n, 3, 64, 64) uint8."""
    captions: list[list[str]]
    """A few captions for each image."""

    def batch(self, indices: Tensor) -> Tensor:
        """A batch as (batch, 3, 64, 64) floats in [-1, 1]."""
        return self.pixels[indices].float() / 127.5 - 1


def render_training_set(
    subjects: Sequence[ArtworkSubject], *, captions: int, seed: int
) -> TrainingSet:
    """Each drawing twice on white and once on another color, at slightly different sizes."""
    rng = random.Random(seed)
    pixels, texts = [], []
    colors = [name for name in BACKGROUNDS if name != "white"]
    for subject in subjects:
        for hand, svg in subject.drawings.items():
            for ground in ("white", "white", rng.choice(colors)):
                margin = (1 - rng.uniform(*SIZE_JITTER)) / 2
                drawing = render_drawing(svg, RENDER_SIZE, margin=margin)
                pixels.append(np.asarray(lay_over(drawing, BACKGROUNDS[ground], SIZE)))
                texts.append(
                    [write_caption(subject, hand, ground, rng=rng) for _ in range(captions)]
                )
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return TrainingSet(stacked, texts)
