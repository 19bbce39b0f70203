from __future__ import annotations

import pytest
from PIL import Image

from worker.core.evaluation.style import PatchScale
from worker.core.starter.examples import CHALKBOARD, LINOCUT, Example


def images_of(example: Example, places: slice) -> list[Image.Image]:
    return [Image.open(file) for file in sorted(example.folder.glob("*.webp"))[places]]


def test_other_subjects_of_the_style_are_near_it_and_a_blend_is_between() -> None:
    chalk, cut = images_of(CHALKBOARD, slice(0, 6)), images_of(LINOCUT, slice(0, 6))
    others = images_of(LINOCUT, slice(6, 12))
    scale = PatchScale(chalk, cut)
    assert scale.score(chalk) == pytest.approx(0)
    assert scale.score(cut) == pytest.approx(1)
    halfway = [
        Image.blend(one.convert("RGB"), other.convert("RGB"), 0.5)
        for one, other in zip(chalk, others, strict=True)
    ]
    assert 0.1 < scale.score(halfway) < scale.score(others)
    assert scale.score(others) > 0.5  # six images of other subjects
