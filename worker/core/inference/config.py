"""What a person may ask of a picture; pydantic only, so that a form and a render share it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

SAMPLER_VERSION = 2
"""Of worker/sampling.py: one more whenever the same request gives another picture."""

MIN_WEIGHT, MAX_WEIGHT = -10.0, 10.0
MAX_PROMPT_CHARACTERS = 2_000
MAX_COUNT = 8
MAX_CLIP_SKIP = 4
MAX_SEED = 2**32 - 1
MIN_SIDE, MAX_SIDE, SIDE_STEP = 32, 2_048, 8

AdapterWeight = Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=SIDE_STEP)]


class RenderConfig(BaseModel, extra="forbid", frozen=True):
    """One request for pictures; picture i is drawn from seed + i, however many are asked for."""

    prompt: str = Field(
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
        title="Prompt",
        description="What to draw. Begin with the trigger word of your adapter.",
    )
    negative_prompt: str = Field(
        default="",
        max_length=MAX_PROMPT_CHARACTERS,
        title="Negative prompt",
        description="What to keep out of the picture. Has no effect at guidance 1 or less.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same seed and settings give the same picture.",
    )
    steps: int = Field(
        default=20,
        ge=1,
        le=150,
        title="Steps",
        description="More steps take longer and draw more carefully; 20 to 30 are usual.",
    )
    guidance: float = Field(
        default=4.0,
        ge=0.0,
        le=30.0,
        allow_inf_nan=False,
        title="Guidance",
        description="How strictly the picture follows the prompt. At 1 or less it is switched off.",
    )
    clip_skip: int = Field(
        default=1,
        ge=1,
        le=MAX_CLIP_SKIP,
        title="CLIP skip",
        description="Which layer of the text encoder is read, counted from the last. An adapter "
        "draws as it was trained to only with the CLIP skip of its training.",
    )
    width: Side | None = Field(
        default=None,
        title="Width",
        description="In pixels, a multiple of 8. Empty: the base model's own size.",
    )
    height: Side | None = Field(
        default=None,
        title="Height",
        description="In pixels, a multiple of 8. Empty: the base model's own size.",
    )
    count: int = Field(
        default=1,
        ge=1,
        le=MAX_COUNT,
        title="Pictures",
        description="How many pictures, with the seeds that follow the first.",
    )
