"""The images of a training that are held out, chosen by its seed. It loads no torch."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from worker.core.training.data.epochs import held_out_count
from worker.core.training.data.images import TrainingImage
from worker.core.training.errors import DatasetError

TOO_FEW = "The dataset has too few images for a validation split. Set “Validation split” to 0."


def split(
    images: Sequence[TrainingImage], share: float, *, seed: int
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """(training, validation) images; see `held_out_places`."""
    chosen = held_out_places(images, share, seed=seed)
    return (
        [image for index, image in enumerate(images) if index not in chosen],
        [images[index] for index in sorted(chosen)],
    )


def held_out_places(images: Sequence[TrainingImage], share: float, *, seed: int) -> set[int]:
    """The indices of the held-out images, chosen by the seed; none is for regularization.

    At least one image is held out if the share is not 0; DatasetError when none is left to train
    on. The same image in another dataset of the training is held out with it.
    """
    own = [index for index, image in enumerate(images) if not image.is_regularization]
    if not share:
        return set()
    count = held_out_count(share, len(own))
    if count >= len(own):
        raise DatasetError(TOO_FEW)
    chosen = {own[place] for place in _drawn(len(own), count, seed)}
    chosen |= _copies_elsewhere(images, own, chosen)
    if len(chosen) == len(own):
        raise DatasetError(TOO_FEW)
    return chosen


def _copies_elsewhere(
    images: Sequence[TrainingImage], own: Sequence[int], chosen: Set[int]
) -> set[int]:
    """The indices of equal files in other datasets: trained on, they would be no test."""
    places = {(images[index].sha256, images[index].dataset) for index in chosen}
    held = {sha256 for sha256, _ in places}
    return {
        index
        for index in own
        if images[index].sha256 in held
        and (images[index].sha256, images[index].dataset) not in places
    }


def _drawn(total: int, count: int, seed: int) -> list[int]:
    """The first of so many numbers, as `torch.randperm` with this seed shuffles them.

    Both swap each place with a later one that the same Mersenne Twister draws.
    """
    row = list(range(total))
    bits = np.random.RandomState(seed % 2**32).randint(0, 2**32, size=count, dtype=np.uint32)
    for place, drawn in enumerate(bits.tolist()):
        other = place + drawn % (total - place)
        row[place], row[other] = row[other], row[place]
    return row[:count]
