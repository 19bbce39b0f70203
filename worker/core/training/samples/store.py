"""Stores the samples of a run, a folder per step and an image per prompt, and checks them."""

import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from worker.core.atomic_write import write_atomically
from worker.core.training.events import SampleSaved
from worker.core.training.ruined import Blank, SampleCheck, blank_kind
from worker.core.training.samples.sampler import SampleImage, SampleRequest

PREFIX = "step-"
LEAST_STEPS = 4  # of denoising; fewer give a blur
LARGEST = 1.5  # times the side that the training used; larger images fall apart
WEIGHTS = (0.0, 1.0)


class SampleStore:
    """The samples in a folder, each step with `count` prompts."""

    def __init__(self, folder: Path, *, count: int) -> None:
        self._folder = folder
        self._count = count

    def save(self, step: int, sample: SampleImage) -> SampleSaved:
        """Write one image atomically."""
        path = self.path(step, sample.prompt_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        sample.image.save(content, format="PNG")
        write_atomically(path, content.getvalue(), durable=False)
        return SampleSaved(step, sample.prompt_index, sample.prompt, sample.seed, path)

    def is_complete(self, step: int) -> bool:
        """True when every prompt has an image at this step."""
        return len(self._sample_paths(step)) == self._count

    def are_equal(self, step: int, other: int) -> bool:
        """True when two complete steps have exactly the same images."""
        rows = self._sample_paths(step), self._sample_paths(other)
        if not self._count or any(len(row) != self._count for row in rows):
            return False
        return all(map(_has_equal_pixels, *rows))

    def delete_after(self, step: int) -> None:
        """Delete the samples of later steps."""
        for row in self._folder.glob(f"{PREFIX}*"):
            if int(row.name.removeprefix(PREFIX)) > step:
                shutil.rmtree(row)

    def path(self, step: int, prompt_index: int) -> Path:
        """The file of an image; it may not exist."""
        return self._folder / f"{PREFIX}{step:06d}" / f"prompt-{prompt_index}.png"

    def _sample_paths(self, step: int) -> list[Path]:
        """The existing samples of a step, by prompt."""
        paths = [self.path(step, index) for index in range(self._count)]
        return [path for path in paths if path.is_file()]


def _has_equal_pixels(one: Path, other: Path) -> bool:
    with Image.open(one) as first, Image.open(other) as second:
        return first.size == second.size and first.tobytes() == second.tobytes()


def check_samples(
    store: SampleStore, steps: Iterable[int], requests: Sequence[SampleRequest], resolution: int
) -> dict[int, list[SampleCheck]]:
    """The checks of the samples by step, without what nobody would expect an image from.

    Those are prompts with few denoising steps, with images larger than in training, and with an
    adapter weight outside of 0 to 1.
    """
    judged = [one.prompt_index for one in requests if _should_show_an_image(one, resolution)]
    base = _kinds(store, 0, judged)
    found = {step: _kinds(store, step, judged) for step in steps}
    return {
        step: [SampleCheck(kind, base.get(index)) for index, kind in kinds.items()]
        for step, kinds in found.items()
    }


def _should_show_an_image(request: SampleRequest, resolution: int) -> bool:
    settings, (low, high) = request.settings, WEIGHTS
    return (
        settings.steps >= LEAST_STEPS
        and max(settings.width, settings.height) <= LARGEST * resolution
        and low < settings.weight <= high
    )


def _kinds(store: SampleStore, step: int, prompts: Sequence[int]) -> dict[int, Blank | None]:
    return {index: _kind(path) for index in prompts if (path := store.path(step, index)).is_file()}


def _kind(path: Path) -> Blank | None:
    with Image.open(path) as image:
        return blank_kind(image)
