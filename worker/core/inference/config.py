"""Settings of a render; imports only pydantic, so that forms and workers share it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from worker.core.lora_files.parts import Part
from worker.core.lora_files.weights import MAX_WEIGHT, weight_problem
from worker.core.words import MAX_LCM_STEPS, SamplerName

SAMPLER_VERSION = 2
"""Version of the sampling code; increase it when the same request gives another image.

Rounding does not count: an image differs by at most 1 of 255 levels in fp32 from the same one in
another batch.
"""

MAX_PROMPT_CHARACTERS = 2_000
MAX_COUNT = 8
MAX_CLIP_SKIP = 4
MAX_SEED = 2**32 - 1
DEFAULT_STRENGTH = 0.6
MIN_SIDE, MAX_SIDE, SIDE_STEP = 32, 2_048, 8


def _check_weight(weight: float) -> float:
    if problem := weight_problem(weight):
        raise ValueError(problem)
    return weight


AdapterWeight = Annotated[
    float,
    AfterValidator(_check_weight),
    Field(json_schema_extra={"minimum": -MAX_WEIGHT, "maximum": MAX_WEIGHT}),
]


def steps_to_run(steps: int, strength: float | None) -> int:
    """The denoising steps that are run: of an image that starts from another one, the last part.

    None with strength 0, where only the autoencoder changes the image.
    """
    return steps if strength is None else min(int(steps * strength), steps)


class BlockWeights(BaseModel, extra="forbid", frozen=True):
    """Factors of an adapter's weight in the blocks of a UNet; layers outside of them have none."""

    input: AdapterWeight = Field(1.0, description="Factor in the blocks on the way down.")
    middle: AdapterWeight = Field(1.0, description="Factor in the block in the middle.")
    output: AdapterWeight = Field(1.0, description="Factor in the blocks on the way up.")

    @property
    def factors(self) -> tuple[float, float, float]:
        """Those of input, middle and output."""
        return self.input, self.middle, self.output

    @property
    def by_part(self) -> dict[Part, float]:
        """The factors by the part of the UNet."""
        parts = (Part.INPUT, Part.MIDDLE, Part.OUTPUT)
        return dict(zip(parts, self.factors, strict=True))


def _without_plain(blocks: BlockWeights | None) -> BlockWeights | None:
    return None if blocks is None or blocks.factors == (1, 1, 1) else blocks


OptionalBlockWeights = Annotated[BlockWeights | None, AfterValidator(_without_plain)]
"""Block weights; None for those that are all 1."""

Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=SIDE_STEP)]


class ImageSettings(BaseModel, extra="forbid", frozen=True):
    """The settings of one image with their bounds.

    The same settings give the same image. `guidance`: the CFG scale, 1 or less: the negative prompt
    has no effect. `clip_skip`: the layer of the text encoder that is read, counted from the last.
    `width`, `height`: in pixels, None: the native size of the base model. `strength`: how much of
    the image to start from changes, 0 keeps it, 1 replaces it; None without one.
    """

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT_CHARACTERS)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    sampler: SamplerName = SamplerName.DDIM
    steps: int = Field(default=20, ge=1, le=150)
    guidance: float = Field(default=4.0, ge=0.0, le=30.0, allow_inf_nan=False)
    clip_skip: int = Field(default=1, ge=1, le=MAX_CLIP_SKIP)
    width: Side | None = None
    height: Side | None = None
    strength: float | None = Field(default=None, ge=0.0, le=1.0, allow_inf_nan=False)

    @property
    def steps_run(self) -> int:
        """The denoising steps of each image that are run."""
        return steps_to_run(self.steps, self.strength)

    @field_validator("steps")
    @classmethod
    def _check_lcm_steps(cls, steps: int, info: ValidationInfo) -> int:
        if info.data.get("sampler") is SamplerName.LCM and steps > MAX_LCM_STEPS:
            raise ValueError(
                f"The LCM sampler takes at most {MAX_LCM_STEPS} steps; 4 to 8 are usual."
            )
        return steps


class RenderConfig(ImageSettings, frozen=True):
    """One render request; image i uses seed + i, whatever the count."""

    count: int = Field(default=1, ge=1, le=MAX_COUNT)
