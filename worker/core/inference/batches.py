"""Images that are generated together: how many, their text, and their progress.

A batch shares the cost of each operation and of reading the weights. On `starter` four images of
128 px in one batch take 0.56 of the time of one after another on a CPU thread, eight take no less
per image than four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.core.families.text_states import TextStates
from worker.core.inference.errors import RenderCanceled
from worker.core.inference.sampling import Conditioning
from worker.core.memory import is_out_of_memory

PIXELS_AT_ONCE = 9 * 128 * 128
"""Without a GPU: with more pixels the arithmetic is all, and a batch only takes memory.

The nine images of 128 px of a strip are one batch, without a last image that is generated alone.
"""

Preview = Callable[[int, Tensor], None]


@dataclass(frozen=True, eq=False)
class WantedImage:
    """An image to generate: its text (one row), its seed, and the end of the text that was cut."""

    conditioning: Conditioning
    seed: int
    truncated: str


@dataclass(frozen=True)
class StepCallbacks:
    """The function that `generate_latents` calls after each step of a batch."""

    on_step: Callable[[int], None]
    on_preview: Preview | None


@dataclass(frozen=True)
class Watcher:
    """The callbacks of a request, which counts the steps of all its images.

    `first` is the number of images that were generated before.
    """

    on_step: Callable[[int, int], bool]
    on_preview: Preview | None
    total: int
    first: int = 0

    def of_batch(self, first: int, part: Sequence[WantedImage], *, steps: int) -> StepCallbacks:
        """The callbacks of the batch `part`, whose first image is number `first` of the rest."""
        first += self.first

        def note(done: int) -> None:
            if not self.on_step(first * steps + done * len(part), self.total):
                raise RenderCanceled

        preview = self.on_preview
        return StepCallbacks(note, preview and (lambda _, latents: preview(first, latents)))


def images_at_once(device: torch.device, size: tuple[int, int]) -> int | None:
    """The most images of this size (width, height in pixels) in a batch; None: all.

    A CUDA device takes all images of a request; a batch that does not fit in its memory is halved.
    """
    if device.type == "cuda":
        return None
    return max(1, PIXELS_AT_ONCE // (size[0] * size[1]))


def shares_batch(count: int, device: torch.device, size: tuple[int, int]) -> bool:
    """True if some of `count` images of this size are generated together."""
    return count > 1 and images_at_once(device, size) != 1


def concat_conditioning(parts: Sequence[Conditioning]) -> Conditioning:
    """The conditioning of a batch; all have the same guidance."""
    negatives = [part.negative for part in parts if part.negative is not None]
    return Conditioning(
        TextStates.concat([part.prompt for part in parts]),
        TextStates.concat(negatives) if negatives else None,
        parts[0].guidance,
    )


def generate_in_batches(
    wanted: Sequence[WantedImage],
    generate: Callable[[int, Sequence[WantedImage]], Tensor],
    at_once: int | None,
) -> Iterator[Tensor]:
    """The latents (channels, height, width) of each image, generated `at_once` or all together.

    `generate(first, part)` gives those (n, channels, height, width) of a batch. A batch that does
    not fit in memory is generated in halves; the error of a single image is raised.
    """
    first, size = 0, at_once or len(wanted)
    while first < len(wanted):
        part = wanted[first : first + size]
        latents = None
        try:
            latents = generate(first, part)
        except (MemoryError, RuntimeError) as error:  # those of a CPU are plain RuntimeErrors
            if len(part) == 1 or not is_out_of_memory(error):
                raise
        if latents is None:  # outside of `except`, whose error keeps the batch in memory
            size = len(part) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield from latents
        first += len(part)
