"""What a training can be told: one model for the form, the API, the command line and the file.

Imports nothing but pydantic, so that the web front end can check a form with it in a blink.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from worker.core.training.prompts import parse

MAX_SAMPLE_PROMPTS = 8
MAX_PROMPT_LENGTH = 1_000
MAX_SEED = 2**32 - 1
CHECKPOINTING = 1.5  # times as long: each layer is computed once more before its gradients
BLOCK = r"(down\.[0-3]|mid|up\.[0-3])(\.[0-3])?"
BLOCKS_PATTERN = rf"^(all|style|content|{BLOCK}( *, *{BLOCK})*)$"


class Group(StrEnum):
    """The section of the form that a field belongs to, in the order the form shows them."""

    LENGTH = "length"
    ADAPTER = "adapter"
    LEARNING = "learning"
    LOSS = "loss"
    NOISE = "noise"
    CAPTIONS = "captions"
    PICTURES = "pictures"
    SPEED = "speed"
    CHECKPOINTS = "checkpoints"
    SAMPLES = "samples"


class AdapterKind(StrEnum):
    """How the change of a layer is written as a product of small matrices."""

    LORA = "lora"
    LOHA = "loha"
    LOKR = "lokr"


class Targets(StrEnum):
    """Which layers of the base get a pair of low-rank matrices."""

    ATTENTION = "attention"
    LINEAR = "linear"
    ALL = "all"


class Optimizer(StrEnum):
    """How gradients become changes of the adapter."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    ADAMW_SCHEDULE_FREE = "adamw_schedule_free"
    PRODIGY = "prodigy"
    ADAFACTOR = "adafactor"


class LrScheduler(StrEnum):
    """How the learning rate moves from the end of the warm-up to the last step."""

    CONSTANT = "constant"
    COSINE = "cosine"
    COSINE_RESTARTS = "cosine_restarts"
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


class Loss(StrEnum):
    """How far a prediction is from its target."""

    MSE = "mse"
    HUBER = "huber"


class LossWeighting(StrEnum):
    """How much each noise level counts."""

    NONE = "none"
    MIN_SNR = "min_snr"
    DEBIASED = "debiased"


PromptLine = Annotated[
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
    gradient_accumulation: int = Field(
        1,
        ge=1,
        le=64,
        title="Batches per step",
        description="Gradients of so many batches are added up before the adapter is changed: "
        "a larger batch for no more memory, at so many times the time.",
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

    kind: AdapterKind = Field(
        AdapterKind.LORA,
        title="Kind",
        description="LoRA suits most. LoHa and LoKr form the change from other products of small "
        "matrices; their files hold the LoRA that does exactly the same, which is larger.",
        json_schema_extra=_in(Group.ADAPTER),
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
    rank_stabilized: bool = Field(
        False,
        title="Rank-stabilised",
        description="Works at alpha ÷ √rank instead, so that a high rank learns as fast as a "
        "low one (rsLoRA). The file is an ordinary one.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    targets: Targets = Field(
        Targets.ATTENTION,
        title="Layers",
        description="Attention is small and enough for most styles. Linear adds the "
        "feed-forward layers, all adds the convolutions too.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    blocks: str = Field(
        "all",
        pattern=BLOCKS_PATTERN,
        max_length=200,
        title="Blocks",
        description="Which blocks of the UNet: all, or names with commas between: down.0 to "
        "down.3, mid, up.0 to up.3, one attention of a block as up.0.1. For SDXL "
        "also style or content (B-LoRA).",
        json_schema_extra=_in(Group.ADAPTER),
    )
    train_text_encoder: bool = Field(
        False,
        title="Train the text encoder",
        description="Lets the trigger word take on a meaning of its own. Costs some time and "
        "memory.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    text_encoder_rank: int | None = Field(
        None,
        ge=1,
        le=256,
        title="Text encoder rank",
        description="Empty: the same rank.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    text_encoder_alpha: float | None = Field(
        None,
        gt=0,
        le=1_024,
        title="Text encoder alpha",
        description="Empty: as strong as the UNet’s, alpha ÷ rank.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    text_encoder_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        title="Text encoder stops after",
        description="Steps after which the text encoder is left as it is. Empty: it learns to "
        "the end.",
        json_schema_extra=_in(Group.ADAPTER),
    )
    clip_skip: int = Field(
        1,
        ge=1,
        le=4,
        title="CLIP skip",
        description="Which layer of the text encoder the UNet reads, counted from the last: 1 "
        "for most bases, 2 for many drawn ones. SDXL has its own.",
        json_schema_extra=_in(Group.ADAPTER),
    )

    optimizer: Optimizer = Field(
        Optimizer.ADAMW,
        title="Optimizer",
        description="AdamW suits most. 8-bit needs less memory, Adafactor least. "
        "Schedule-free needs no schedule. Prodigy finds its own learning rate, "
        "over some hundred steps.",
        json_schema_extra=_in(Group.LEARNING),
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
    lora_plus_ratio: float | None = Field(
        None,
        ge=1,
        le=64,
        title="LoRA+ ratio",
        description="How many times faster the up matrices learn than the down ones; 4 to 16 "
        "is usual (LoRA+). Empty: alike.",
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
        description="How the learning rate falls: not at all, along a cosine once or again "
        "and again, or in a line.",
        json_schema_extra=_in(Group.LEARNING),
    )
    lr_cycles: int = Field(
        3,
        ge=1,
        le=100,
        title="Restarts",
        description="How often the schedule with restarts runs from the full learning rate "
        "down to nothing.",
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
        ge=0,
        le=1_000,
        title="Largest gradient",
        description="Longer gradients are shortened to this length before a step. 0: never.",
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
    loss: Loss = Field(
        Loss.MSE,
        title="Loss",
        description="Squared error, or pseudo-Huber, on which single odd pictures have less "
        "influence.",
        json_schema_extra=_in(Group.LOSS),
    )
    huber_delta: float = Field(
        0.1,
        gt=0,
        le=10,
        title="Huber delta",
        description="Errors above it count in proportion instead of squared.",
        json_schema_extra=_in(Group.LOSS),
    )
    loss_weighting: LossWeighting = Field(
        LossWeighting.MIN_SNR,
        title="Weighting",
        description="Min-SNR and debiased give nearly clean steps less weight; none counts "
        "all noise levels alike.",
        json_schema_extra=_in(Group.LOSS),
    )
    snr_gamma: float = Field(
        5.0,
        gt=0,
        le=100,
        title="Min-SNR gamma",
        description="Where min-SNR cuts the weight off; 5 is usual.",
        json_schema_extra=_in(Group.LOSS),
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Noise offset",
        description="Helps a base without zero-terminal-SNR to learn very dark and very "
        "bright pictures; 0.05 is much.",
        json_schema_extra=_in(Group.NOISE),
    )
    multires_noise_discount: float | None = Field(
        None,
        gt=0,
        lt=1,
        title="Multi-resolution noise",
        description="Adds coarser noise, each coarser layer so much weaker: 0.1 to 0.3 helps "
        "large even areas. Empty: off.",
        json_schema_extra=_in(Group.NOISE),
    )
    zero_terminal_snr: bool = Field(
        False,
        title="Zero terminal SNR",
        description="Makes the last step of the schedule pure noise, for bases trained like "
        "that. Bases that say so themselves need no setting.",
        json_schema_extra=_in(Group.NOISE),
    )
    caption_dropout: float = Field(
        0.05,
        ge=0,
        le=1,
        title="Caption dropout",
        description="Share of pictures shown without their caption, so that the style does "
        "not hang on words.",
        json_schema_extra=_in(Group.CAPTIONS),
    )
    shuffle_tags: bool = Field(
        False,
        title="Shuffle tags",
        description="Shows the parts of a caption between commas in another order each time.",
        json_schema_extra=_in(Group.CAPTIONS),
    )
    keep_tags: int = Field(
        1,
        ge=0,
        le=50,
        title="Tags kept in front",
        description="So many first parts of a caption stay where they are when tags are "
        "shuffled: the trigger word, say.",
        json_schema_extra=_in(Group.CAPTIONS),
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
    aspect_buckets: bool = Field(
        True,
        title="Keep shapes",
        description="Pictures keep about their own shape, in batches of one shape each. Off: "
        "all are cut to squares.",
        json_schema_extra=_in(Group.PICTURES),
    )
    flip: bool = Field(
        False,
        title="Mirror pictures",
        description="Shows half of the pictures mirrored. Not for letters, nor for styles "
        "with a side that the light comes from. Pictures marked “never mirror” "
        "are not.",
        json_schema_extra=_in(Group.PICTURES),
    )
    masked_loss: bool = Field(
        False,
        title="Learn only what is opaque",
        description="Transparent parts of pictures are laid on white and not learned.",
        json_schema_extra=_in(Group.PICTURES),
    )
    unmasked_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Weight of transparent parts",
        description="How much a transparent part still counts beside an opaque one.",
        json_schema_extra=_in(Group.PICTURES),
    )
    regularisation_weight: float = Field(
        1.0,
        ge=0,
        le=10,
        title="Weight of regularisation",
        description="How much a picture of the regularisation set counts beside one of the style.",
        json_schema_extra=_in(Group.PICTURES),
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        title="Held out",
        description="Share of the pictures that is not trained on, but asked at every "
        "checkpoint how well they are predicted. 0: none.",
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
        description="Computes parts of each step twice instead of storing them: about 1.5 "
        "times slower, and much less memory.",
        json_schema_extra=_in(Group.SPEED),
    )
    compile: bool = Field(
        False,
        title="Compile",
        description="Translates the UNet for this GPU at the start: some minutes, then faster "
        "steps. Not on a CPU.",
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
        description="Steps between two rows of sample pictures. 0: only the first and the "
        "last row.",
        json_schema_extra=_in(Group.SAMPLES),
    )
    sample_prompts: list[PromptLine] = Field(
        default_factory=list,
        max_length=MAX_SAMPLE_PROMPTS,
        title="Sample prompts",
        description="One prompt a line; each is drawn again and again while the adapter "
        "learns. At its end it may say: --d seed, --w width, --h height, --l "
        "guidance, --s steps, --n what not to show, --a weight of the adapter.",
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
        description="The first prompt is drawn from this seed, the second from the next, and "
        "so on; the rows of a run differ only in the adapter.",
        json_schema_extra=_in(Group.SAMPLES),
    )

    @property
    def pictures_per_step(self) -> int:
        """How many pictures one step learns from."""
        return self.batch_size * self.gradient_accumulation

    @property
    def step_cost(self) -> float:
        """What a step takes, in those of one batch that keeps all activations."""
        return self.gradient_accumulation * (CHECKPOINTING if self.gradient_checkpointing else 1.0)

    @field_validator("sample_prompts")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for line in value:
            parse(line)
        return value

    @field_validator("text_encoder_learning_rate", "lora_plus_ratio")
    @classmethod
    def _one_rate(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") is Optimizer.PRODIGY:
            raise ValueError("Prodigy finds one rate for everything: leave this empty.")
        return value

    @field_validator("lora_plus_ratio")
    @classmethod
    def _has_up_matrices(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("kind") is not AdapterKind.LORA:
            raise ValueError("Only LoRA has up matrices: leave this empty, or choose LoRA.")
        return value

    @field_validator("lr_scheduler")
    @classmethod
    def _free_of_schedules(cls, value: LrScheduler, info: ValidationInfo) -> LrScheduler:
        free = info.data.get("optimizer") is Optimizer.ADAMW_SCHEDULE_FREE
        if free and value is not LrScheduler.CONSTANT:
            raise ValueError("Schedule-free AdamW needs none: choose constant.")
        return value

    @field_validator("ema_decay")
    @classmethod
    def _one_average(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") is Optimizer.ADAMW_SCHEDULE_FREE:
            raise ValueError("Schedule-free AdamW averages by itself: leave this empty.")
        return value


class TrainJob(BaseModel):
    """What `python -m worker.core.training config.json` reads: where things are, and the config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="Folder or .safetensors file of the base model.")
    data: Path = Field(description="Folder of pictures with metadata.jsonl or .txt captions.")
    out: Path = Field(description="Folder for the adapter, the samples and the checkpoints.")
    cache: Path | None = Field(None, description="Folder of encoded pictures, kept between runs.")
    config: TrainConfig = Field(default_factory=lambda: TrainConfig())
