"""What a training can be told: one model for the form, the API, the command line and the file.

Imports nothing but pydantic, so that the web front end can check a form with it in a blink.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_SAMPLE_PROMPTS = 8
MAX_PROMPT_LENGTH = 1_000
MAX_SEED = 2**32 - 1


class Group(StrEnum):
    """The section of the form that a field belongs to, in the order the form shows them."""

    LENGTH = "length"
    ADAPTER = "adapter"
    LEARNING = "learning"
    LOSS = "loss"
    PICTURES = "pictures"
    SPEED = "speed"
    CHECKPOINTS = "checkpoints"
    SAMPLES = "samples"


class Targets(StrEnum):
    """Which layers of the base get a pair of low-rank matrices."""

    ATTENTION = "attention"
    LINEAR = "linear"
    ALL = "all"


class Optimizer(StrEnum):
    """How gradients become changes of the adapter."""

    ADAMW = "adamw"


class LrScheduler(StrEnum):
    """How the learning rate moves from the end of the warm-up to the last step."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Precision(StrEnum):
    """The arithmetic of the base during a step; the adapter itself is always fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class PredictionType(StrEnum):
    """What the UNet was trained to predict."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


SamplePrompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_LENGTH)
]


def _in(group: Group) -> dict[str, Any]:
    return {"group": group.value}


class TrainConfig(BaseModel):
    """Every choice of one training; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(
        1_000,
        ge=1,
        le=100_000,
        title="Steps",
        description="How many times the adapter is changed. More learns the style deeper, "
        "then begins to copy the pictures.",
        json_schema_extra=_in(Group.LENGTH),
    )
    batch_size: int = Field(
        2,
        ge=1,
        le=64,
        title="Batch size",
        description="Pictures per step. Larger batches learn more evenly and need more memory.",
        json_schema_extra=_in(Group.LENGTH),
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same seed on the same pictures gives the same adapter.",
        json_schema_extra=_in(Group.LENGTH),
    )

    rank: int = Field(
        8,
        ge=1,
        le=256,
        title="Rank",
        description="Width of the adapter's matrices: the size of the file and how much it "
        "can hold. 4 to 16 suits a style.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    alpha: float = Field(
        8.0,
        gt=0,
        le=1_024,
        title="Alpha",
        description="Strength: the adapter works at alpha ÷ rank. Equal to the rank keeps 1.0.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    targets: Targets = Field(
        Targets.ATTENTION,
        title="Layers",
        description="Attention is small and enough for most styles. Linear adds the "
        "feed-forward layers, all adds the convolutions too.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    train_text_encoder: bool = Field(
        False,
        title="Train the text encoder",
        description="Lets the trigger word take on a meaning of its own. Costs some time "
        "and memory.",
        json_schema_extra=_in(Group.ADAPTER),
    )

    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=1,
        title="Learning rate",
        description="The size of each change. Too high ruins the picture, too low learns nothing.",
        json_schema_extra=_in(Group.LEARNING),
    )
    text_encoder_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Text encoder learning rate",
        description="Empty: the same as the learning rate.",
        json_schema_extra=_in(Group.LEARNING),
    )
    optimizer: Optimizer = Field(
        Optimizer.ADAMW,
        title="Optimizer",
        description="AdamW: the usual choice, with decoupled weight decay.",
        json_schema_extra=_in(Group.LEARNING),
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        le=1,
        title="Weight decay",
        description="Pulls the adapter gently back to nothing.",
        json_schema_extra=_in(Group.LEARNING),
    )
    lr_scheduler: LrScheduler = Field(
        LrScheduler.COSINE,
        title="Schedule",
        description="How the learning rate falls: not at all, along a cosine, or in a line.",
        json_schema_extra=_in(Group.LEARNING),
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        title="Warm-up steps",
        description="Steps in which the learning rate rises from nothing.",
        json_schema_extra=_in(Group.LEARNING),
    )
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        le=1_000,
        title="Largest gradient",
        description="Longer gradients are shortened to this length before a step.",
        json_schema_extra=_in(Group.LEARNING),
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        title="EMA decay",
        description="Keeps a moving average of the adapter and gives you that: 0.99 averages "
        "about a hundred steps. Empty: off.",
        json_schema_extra=_in(Group.LEARNING),
    )

    prediction_type: PredictionType | None = Field(
        None,
        title="Prediction",
        description="What the base predicts. Empty: what the base says of itself.",
        json_schema_extra=_in(Group.LOSS),
    )
    snr_gamma: float | None = Field(
        5.0,
        gt=0,
        le=100,
        title="Min-SNR gamma",
        description="Gives easy, nearly clean steps less weight; 5 is usual. Empty: all "
        "noise levels alike.",
        json_schema_extra=_in(Group.LOSS),
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Noise offset",
        description="Helps a base without zero-terminal-SNR to learn very dark and very "
        "bright pictures; 0.05 is much.",
        json_schema_extra=_in(Group.LOSS),
    )
    caption_dropout: float = Field(
        0.05,
        ge=0,
        le=1,
        title="Caption dropout",
        description="Share of pictures shown without their caption, so that the style does not "
        "hang on words.",
        json_schema_extra=_in(Group.LOSS),
    )

    resolution: int | None = Field(
        None,
        ge=32,
        le=2_048,
        multiple_of=8,
        title="Resolution",
        description="Pixels of the side of a square of the trained size; a multiple of 8. "
        "Empty: the base's own.",
        json_schema_extra=_in(Group.PICTURES),
    )
    flip: bool = Field(
        False,
        title="Mirror pictures",
        description="Shows half of the pictures mirrored. Not for letters, nor for styles with "
        "a side that the light comes from.",
        json_schema_extra=_in(Group.PICTURES),
    )

    precision: Precision = Field(
        Precision.AUTO,
        title="Precision",
        description="Auto measures which is fastest on this machine. The adapter itself is "
        "always kept in fp32.",
        json_schema_extra=_in(Group.SPEED),
    )
    gradient_checkpointing: bool = Field(
        False,
        title="Save memory",
        description="Computes parts of each step twice instead of storing them: about 1.5 times "
        "slower, and much less memory.",
        json_schema_extra=_in(Group.SPEED),
    )

    checkpoint_every: int = Field(
        100,
        ge=0,
        le=100_000,
        title="Checkpoint every",
        description="Steps between two saved states that a run can go on from. 0: none on the way.",
        json_schema_extra=_in(Group.CHECKPOINTS),
    )
    keep_checkpoints: int = Field(
        2,
        ge=1,
        le=100,
        title="Checkpoints kept",
        description="Older ones are deleted.",
        json_schema_extra=_in(Group.CHECKPOINTS),
    )

    sample_every: int = Field(
        100,
        ge=0,
        le=100_000,
        title="Sample every",
        description="Steps between two rows of sample pictures. 0: only the first and the last "
        "row.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_prompts: list[SamplePrompt] = Field(
        default_factory=list,
        max_length=MAX_SAMPLE_PROMPTS,
        title="Sample prompts",
        description="One prompt a line; each is drawn again and again while the adapter learns.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_negative_prompt: str = Field(
        "",
        max_length=MAX_PROMPT_LENGTH,
        title="Negative prompt",
        description="What the samples should not show.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_steps: int = Field(
        20,
        ge=1,
        le=150,
        title="Sampling steps",
        description="Denoising steps of a sample picture.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_guidance: float = Field(
        7.0,
        ge=0,
        le=30,
        title="Guidance",
        description="How closely samples follow their prompt; 1 and below: no guidance.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        title="Sample seed",
        description="The first prompt is drawn from this seed, the second from the next, and so "
        "on; the rows of a run differ only in the adapter.",
        json_schema_extra=_in(Group.SAMPLES),
    )


class TrainJob(BaseModel):
    """What `python -m worker.training config.json` reads: where things are, and the config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="Folder or .safetensors file of the base model.")
    data: Path = Field(description="Folder of pictures with metadata.jsonl or .txt captions.")
    out: Path = Field(description="Folder for the adapter, the samples and the checkpoints.")
    cache: Path | None = Field(None, description="Folder of encoded pictures, kept between runs.")
    config: TrainConfig = Field(default_factory=lambda: TrainConfig())
