"""The signs of a ruined training: a loss above the base model's, or samples without an image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from worker.core.starter.examples import EXAMPLES
from worker.core.training.data.validation import PredictionError
from worker.core.training.health import FIRST_LOSSES, RECENT_LOSSES, STEPS_BETWEEN_LOOKS, LossWatch
from worker.core.training.ruined import (
    SIDE,
    WORSE,
    Blank,
    FixedLosses,
    SampleCheck,
    blank_kind,
    judge,
)

FIXTURES = Path(__file__).parents[1] / "starter" / "fixtures"
GOOD, NOISE = SampleCheck(None, None), SampleCheck(Blank.NOISE, None)
BOTH = SampleCheck(Blank.NOISE, Blank.NOISE)


def noise(side: int, *, channels: int = 3) -> Image.Image:
    """Noise in blobs of `SIDE / side` pixels."""
    shape = (side, side, 3) if channels == 3 else (side, side)
    levels = np.random.default_rng(side).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def line_drawing() -> Image.Image:
    image = Image.new("RGB", (300, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 40, 180, 160), outline="black", width=2)
    draw.line((20, 180, 280, 150), fill="black", width=2)
    return image


@pytest.mark.parametrize("side", [8, 16, 32, 64, SIDE, 512])
def test_noise_of_pixels_and_of_blobs_carries_no_image(side: int) -> None:
    assert blank_kind(noise(side)) is Blank.NOISE
    assert blank_kind(noise(side, channels=1)) is Blank.NOISE
    assert blank_kind(noise(side).filter(ImageFilter.GaussianBlur(1))) is Blank.NOISE


@pytest.mark.parametrize("color", ["black", "white", (90, 140, 20)])
def test_one_color_carries_no_image(color: str) -> None:
    image = Image.new("RGB", (128, 96), color)
    assert blank_kind(image) is Blank.ONE_COLOR
    image.putpixel((3, 3), (0, 80, 90))
    assert blank_kind(image) is Blank.ONE_COLOR


def test_images_of_every_style_carry_an_image() -> None:
    images = {f"{key}/{path.name}": Image.open(path) for key, example in EXAMPLES.items()
              for path in sorted(example.folder.glob("*.webp"))}  # fmt: skip
    for path in sorted(FIXTURES.glob("*.webp")):
        with Image.open(path) as row:
            for left in range(0, row.width, row.height):
                box = (left, 0, left + row.height, row.height)
                images[f"{path.name} {left}"] = row.crop(box)
    assert len(images) > 50
    images["a line drawing"] = line_drawing()
    images["a drawing in white on black"] = Image.eval(line_drawing(), lambda level: 255 - level)
    blank = {
        (name, way): kind
        for name, image in images.items()
        for way, shown in (("color", image), ("gray", image.convert("L")))
        if (kind := blank_kind(shown)) is not None
    }
    assert blank == {}


def losses(**by_step: float) -> dict[int, FixedLosses]:
    """Losses that are equal at all noise levels, by step, such as `_10=0.3`."""
    return {int(step[1:]): FixedLosses((loss,) * 4) for step, loss in by_step.items()}


def test_a_loss_above_the_base_models_is_ruined_and_names_the_good_checkpoints() -> None:
    found = losses(_0=0.4, _10=0.3, _20=0.35, _25=0.41, _30=0.9, _40=1.2)
    verdict = judge(found, {10: [GOOD], 20: [NOISE]}, last=40)
    assert verdict.reason is not None
    assert verdict.reason.startswith("The loss on fixed images is 1.200, and 0.400 without the ad")
    assert verdict.good_steps == (10,)
    assert judge(losses(_0=0.4, _40=math.nan), {}, last=40).reason is not None
    assert judge(losses(_0=0.4, _40=0.39 * WORSE), {}, last=40).reason is None


def test_what_was_forgotten_shows_at_little_noise_though_the_mean_fell() -> None:
    base = FixedLosses((0.33, 0.29, 0.55, 1.9))
    forgot = FixedLosses((0.95, 0.65, 0.46, 0.4))
    verdict = judge({0: base, 20: forgot}, {}, last=20)
    assert forgot.mean < base.mean
    assert verdict.reason is not None
    assert verdict.reason.startswith("The loss on fixed images with the least noise is 0.950, and")
    assert forgot.rise(base) == pytest.approx(1 + 0.62 / (base.mean / 2))
    tiny = FixedLosses((0.33, 0.29, 0.1, 0.004))
    assert not FixedLosses((0.33, 0.28, 0.1, 0.01)).is_worse(tiny)
    assert not FixedLosses((0.36, 0.3, 0.4, 1.0)).is_worse(base)


def test_losses_are_sorted_into_quarters_of_the_noise_levels() -> None:
    errors = [PredictionError(0, level, level / 100, 1.0) for level in (90, 10, 60, 40, 20, 80)]
    assert FixedLosses.of(errors).quarters == pytest.approx((0.1, 0.3, 0.6, 0.85))


def test_samples_without_an_image_ruin_a_run_if_the_base_model_had_one() -> None:
    fell = losses(_0=0.4, _20=0.3, _40=0.2)
    found = judge(fell, {40: [NOISE, NOISE, GOOD], 20: [GOOD]}, last=40)
    assert found.reason is not None
    assert found.reason.startswith("2 of 3 samples carry no image: noise. Train again with a lo")
    assert found.good_steps == (20,)
    assert judge(fell, {40: [NOISE, GOOD]}, last=40).reason is None
    assert judge(fell, {40: [BOTH, BOTH]}, last=40, guess=1.0).reason is None
    assert judge(fell, {}, last=40).reason is None


def test_a_base_model_that_predicts_worse_than_a_guess_is_named_as_the_cause() -> None:
    found = judge(losses(_0=1.3, _40=0.9), {40: [BOTH, BOTH]}, last=40, guess=1.0)
    assert found.reason is not None
    assert "“Prediction type”" in found.reason


def test_a_rise_of_the_loss_is_looked_at_now_and_then() -> None:
    watch = LossWatch()
    looks = []
    for step in range(1, 90):
        if step == 40:
            saved = LossWatch()
            saved.load(watch.state())
            watch = saved
        if watch.add(step, 0.2 if step <= FIRST_LOSSES + 5 else 0.5):
            looks.append(step)
    assert len(looks) == 3
    assert looks[0] >= FIRST_LOSSES + RECENT_LOSSES
    assert looks[1] - looks[0] == looks[2] - looks[1] == STEPS_BETWEEN_LOOKS
    calm = LossWatch()
    assert not any(calm.add(step, 0.2 + 0.05 * (step % 3)) for step in range(60))
