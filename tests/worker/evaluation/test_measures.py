from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from worker.core.evaluation.errors import NotMeasured
from worker.core.evaluation.measures import Adherence, MemoryScale, drift, variety
from worker.core.eyes import Eyes, NoTextSide, open_eyes
from worker.core.starter.examples import CHALKBOARD, LINOCUT, Example

COUNT = 8


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return open_eyes(device="cpu")


def images_of(example: Example) -> dict[str, Image.Image]:
    """The images of an example by subject, which is the name of the file."""
    files = sorted(example.folder.glob("*.webp"))
    return {file.stem.replace("-", " "): Image.open(file).convert("RGB") for file in files}


CHALK, CUT = images_of(CHALKBOARD), images_of(LINOCUT)
SHARED = sorted(CHALK.keys() & CUT.keys())


def test_adherence_falls_when_images_show_another_subject(eyes: Eyes) -> None:
    names = SHARED[:COUNT]
    base = [CUT[name] for name in names]
    measure = Adherence(eyes, names, base)
    assert measure.of(base).mean() == pytest.approx(1)
    right = measure.of([CHALK[name] for name in names])
    wrong = measure.of([CHALK[name] for name in names[1:] + names[:1]])
    assert right.shape == (COUNT,)
    assert right.mean() > wrong.mean() + 0.3
    same = measure.of([CHALK[names[0]]] * COUNT)
    assert abs(same.mean()) < 0.1


def test_drift_is_nothing_for_the_same_images_and_one_for_another_subject(eyes: Eyes) -> None:
    base = [CUT[name] for name in SHARED[:COUNT]]
    assert drift(eyes, base, base) == pytest.approx(0, abs=1e-3)
    assert drift(eyes, base[1:] + base[:1], base) == pytest.approx(1, abs=0.3)


def test_subjects_without_a_name_are_compared_with_the_images_of_the_base(eyes: Eyes) -> None:
    names = SHARED[:COUNT]
    measure = Adherence(eyes, ["zorblax", *names[1:]], [CUT[name] for name in names])
    assert measure.of([CHALK[name] for name in names]).mean() > 0.3


def test_eyes_without_texts_compare_with_the_images_of_the_base(
    eyes: Eyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knows(_texts: object) -> list[bool]:
        raise NoTextSide("images only")

    monkeypatch.setattr(eyes, "knows", knows)
    names = SHARED[:COUNT]
    assert (
        Adherence(eyes, names, [CUT[name] for name in names])
        .of([CHALK[name] for name in names])
        .mean()
        > 0.3
    )


def test_adherence_is_not_measured_without_subjects_that_differ(eyes: Eyes) -> None:
    four = [CUT[name] for name in SHARED[:4]]
    with pytest.raises(NotMeasured, match="at least 4 prompts"):
        Adherence(eyes, SHARED[:3], four[:3])
    with pytest.raises(NotMeasured, match="another subject"):
        Adherence(eyes, [*SHARED[:3], SHARED[0]], four)
    with pytest.raises(NotMeasured, match="even the base model's own images"):
        Adherence(eyes, SHARED[:4], four[1:] + four[:1])


def test_images_of_one_color_have_no_variety() -> None:
    some = [CUT[name] for name in SHARED[:4]]
    assert variety(some, some) == pytest.approx(1)
    assert variety([Image.new("RGB", (64, 64), "white")] * 4, some) == 0


def test_mirrored_and_smaller_copies_of_trained_images_are_seen(eyes: Eyes) -> None:
    names = [*CHALK][:16]
    trained, held_out = [CHALK[one] for one in names[:8]], [CHALK[one] for one in names[8:]]
    scale = MemoryScale(eyes, trained, held_out)
    honest = [CUT.get(one, CUT[SHARED[0]]) for one in names]
    control = honest[8:]
    copies = [ImageOps.mirror(image).resize((96, 96)) for image in trained]
    found = scale.of(copies, control)
    assert found.ratio is not None
    assert found.ratio < 0.5
    unlike = scale.of(honest[:8], control)
    assert unlike.ratio is not None
    assert unlike.ratio > 0.7
    one_copy = scale.of([*honest[:3], copies[3], *honest[4:8]], control)
    assert np.argmin(one_copy.distances) == 3


def test_few_held_out_images_give_distances_and_no_ratio(eyes: Eyes) -> None:
    four = [CUT[name] for name in SHARED[:4]]
    found = MemoryScale(eyes, four, four[:3]).of(four, four[:3])
    assert found.ratio is None
    assert np.allclose(found.distances, 0, atol=1e-3)
