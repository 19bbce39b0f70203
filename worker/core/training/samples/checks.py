"""Looks for samples that carry no image, among those that should carry one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from worker.core.training.blank_images import Blank, blank_kind
from worker.core.training.ruined import SampleCheck
from worker.core.training.samples.sampler import SampleRequest
from worker.core.training.samples.store import SampleStore

LEAST_STEPS = 4  # of denoising; fewer give a blur
LARGEST = 1.5  # times the side that the training used; larger images fall apart
WEIGHTS = (0.0, 1.0)


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
