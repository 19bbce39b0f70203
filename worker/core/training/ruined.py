"""Tells a ruined training: one whose result is clearly worse than the base model without it.

Two measurements say so. The loss on fixed images, with fixed noise and timesteps, is compared with
that of the base model alone, and the samples are looked at for those that show nothing: one color,
or noise without structure. For that an image is reduced to `SIDE` pixels and cut into `PATCHES` by
`PATCHES` patches. An image of something has calm parts and busy ones, in whatever style: the
contrast of its patches differs. In noise, be it of single pixels or of blobs, every part is as busy
as every other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import fmean

import numpy as np
from PIL import Image

from worker.core.training.data.validation import PredictionError
from worker.core.training.outcome import NOT_RUINED, Verdict

SIDE = 128
PATCHES = 8
LEAST_CONTRAST = 4.0  # of 255 levels; less is one color
LEAST_VARIATION = 0.42  # of the contrast of patches, relative to its mean; less is noise
WORSE = 1.15  # times the loss of the base model
WORSE_IN_A_QUARTER = 1.5  # the same, at a quarter of the noise levels
QUARTERS = ("the least", "little", "much", "the most")  # noise
HIGHEST_RISE = 1_000.0
LOWER_RATE = "Train again with a lower learning rate, such as that of the preset."
OTHER_PREDICTION = (
    "The base model itself predicts worse than chance with these settings: check “Prediction type” "
    "and the base model, then train again."
)


class Blank(StrEnum):
    """The kind of an image that shows nothing."""

    ONE_COLOR = "one color"
    NOISE = "noise"


def blank_kind(image: Image.Image) -> Blank | None:
    """The kind of an image that shows nothing; None for an image of something."""
    pixels = reduced(image)
    if pixels.std(axis=(0, 1)).max() < LEAST_CONTRAST:
        return Blank.ONE_COLOR
    return Blank.NOISE if contrast_variation(pixels) < LEAST_VARIATION else None


def reduced(image: Image.Image) -> np.ndarray:
    """The pixels of the reduced image: (SIDE, SIDE, 3), 0 to 255."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def contrast_variation(pixels: np.ndarray) -> float:
    """The standard deviation of the patches' contrast divided by its mean; pixels (side, side, 3).

    The contrast of a patch is the standard deviation of its pixels, averaged over the channels.
    """
    side = SIDE // PATCHES
    patches = pixels.reshape(PATCHES, side, PATCHES, side, 3)
    contrast = patches.std(axis=(1, 3)).mean(axis=-1)
    return float(contrast.std() / contrast.mean())


@dataclass(frozen=True, slots=True)
class SampleCheck:
    """Defects of a sample and of the base model's sample of the same prompt, if any."""

    trained: Blank | None
    base: Blank | None


@dataclass(frozen=True, slots=True)
class FixedLosses:
    """The losses on the fixed images by quarter of the noise levels, from the least noise.

    The base model may be so far from a style at much noise that even a ruined adapter is better
    there: it predicts the average color. What it forgot shows at little noise.
    """

    quarters: tuple[float, ...]

    @classmethod
    def of(cls, errors: Sequence[PredictionError]) -> "FixedLosses":
        """The losses of these predictions, at least one per quarter."""
        ordered = [found.error for found in sorted(errors, key=lambda found: found.level)]
        ends = [number * len(ordered) // len(QUARTERS) for number in range(len(QUARTERS) + 1)]
        return cls(tuple(fmean(ordered[start:end]) for start, end in pairwise(ends)))

    @property
    def mean(self) -> float:
        """The mean over all noise levels."""
        return fmean(self.quarters)

    def rises(self, base: "FixedLosses") -> list[float]:
        """The ratio to the base model's loss, by quarter; 1,000 at most.

        Some quarters have next to no loss, where a small rise says nothing: a rise is divided by
        half of the base model's mean at least.
        """
        pairs = zip(self.quarters, base.quarters, strict=True)
        return [
            min(HIGHEST_RISE, 1 + _ratio(mine - other, max(other, base.mean / 2)))
            for mine, other in pairs
        ]

    def rise(self, base: "FixedLosses") -> float:
        """The ratio to the base model's loss at the quarter where it is highest."""
        return max(self.rises(base))

    def is_worse(self, base: "FixedLosses") -> bool:
        """True if it is clearly above the base model's."""
        return _ratio(self.mean, base.mean) > WORSE or self.rise(base) > WORSE_IN_A_QUARTER

    def is_good(self, base: "FixedLosses") -> bool:
        """True if it is not above the base model's, and nearly so in each quarter."""
        return _ratio(self.mean, base.mean) <= 1 and self.rise(base) <= WORSE


def _ratio(loss: float, base: float) -> float:
    ratio = loss / base if math.isfinite(loss) and base > 0 else HIGHEST_RISE
    return min(ratio, HIGHEST_RISE)


def judge(
    losses: Mapping[int, FixedLosses],
    samples: Mapping[int, Sequence[SampleCheck]],
    *,
    last: int,
    guess: float = math.inf,
) -> Verdict:
    """The verdict on the training that ended at step `last`.

    `losses`: those on the fixed images by step, 0 being the base model; `guess`: that of a model
    that always predicts zero. `samples`: the checked samples by step. What was not measured is no
    reason.
    """
    base = losses.get(0)
    base_fails = base is not None and base.mean >= guess
    reason = _loss_reason(losses, last) or _sample_reason(
        samples.get(last, ()), base_fails=base_fails
    )
    if reason is None:
        return NOT_RUINED
    good = (
        step
        for step, loss in losses.items()
        if 0 < step < last
        and loss.is_good(base or loss)
        and _sample_reason(samples.get(step, ()), base_fails=base_fails) is None
    )
    return Verdict(reason, tuple(sorted(good, reverse=True)))


def _loss_reason(losses: Mapping[int, FixedLosses], last: int) -> str | None:
    if 0 not in losses or last not in losses or not losses[last].is_worse(losses[0]):
        return None
    loss, base = losses[last], losses[0]
    if not math.isfinite(loss.mean):
        return f"The loss on fixed images is not a finite number. {LOWER_RATE}"
    if loss.mean > WORSE * base.mean:
        where, shown, other = "", loss.mean, base.mean
    else:
        rises = loss.rises(base)
        worst = rises.index(max(rises))
        where = f" with {QUARTERS[worst]} noise"
        shown, other = loss.quarters[worst], base.quarters[worst]
    return (
        f"The loss on fixed images{where} is {shown:.3f}, and {other:.3f} without the adapter: it "
        f"makes the model worse. {LOWER_RATE}"
    )


def _sample_reason(checks: Sequence[SampleCheck], *, base_fails: bool) -> str | None:
    """Why samples say that the training is ruined.

    More than half of them carry no image. If those of the base model do not either, they tell
    nothing, unless the base model predicts worse than a guess.
    """
    blank = [check for check in checks if check.trained is not None]
    if 2 * len(blank) <= len(checks):
        return None
    found = (
        f"{len(blank)} of {len(checks)} samples carry no image: "
        + ", ".join(sorted({str(check.trained) for check in blank}))
        + "."
    )
    if any(check.base is None for check in blank):
        return f"{found} {LOWER_RATE}"
    if base_fails:
        return f"{found} {OTHER_PREDICTION}"
    return None
