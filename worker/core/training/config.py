"""Settings of a training run: one model for the form, the API, the command line and the file.

Imports only pydantic, so that the web front end can validate a form without loading torch.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from worker.core.old_names import accept_old_names
from worker.core.training.prompts import parse_prompt

MAX_SAMPLE_PROMPTS = 8
MAX_PROMPT_LENGTH = 1_000
MAX_SEED = 2**32 - 1
CHECKPOINTING = 1.5  # times as long: each forward pass is computed twice
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
    """Parametrization of a layer's change as a product of small matrices."""

    LORA = "lora"
    LOHA = "loha"
    LOKR = "lokr"


class Targets(StrEnum):
    """Layers of the base model that get a pair of low-rank matrices."""

    ATTENTION = "attention"
    LINEAR = "linear"
    ALL = "all"


class Optimizer(StrEnum):
    """Optimizer that turns gradients into updates of the adapter."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    ADAMW_SCHEDULE_FREE = "adamw_schedule_free"
    PRODIGY = "prodigy"
    ADAFACTOR = "adafactor"


class LrScheduler(StrEnum):
    """Learning rate schedule from the end of the warm-up to the last step."""

    CONSTANT = "constant"
    COSINE = "cosine"
    COSINE_RESTARTS = "cosine_restarts"
    LINEAR = "linear"


class Precision(StrEnum):
    """Number type of the base model during a step; the adapter itself is always fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class PredictionType(StrEnum):
    """Quantity that the UNet was trained to predict."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class Loss(StrEnum):
    """Distance between a prediction and its target."""

    MSE = "mse"
    HUBER = "huber"


class LossWeighting(StrEnum):
    """Weight of each noise level in the loss."""

    NONE = "none"
    MIN_SNR = "min_snr"
    DEBIASED = "debiased"


PromptLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_LENGTH)
]


def _in_group(group: Group) -> dict[str, Any]:
    return {"group": group.value}


class TrainConfig(BaseModel):
    """All settings of one training run; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(
        1_000,
        ge=1,
        le=100_000,
        title="Steps",
        description="Training steps. More steps learn the style better, then start to "
        "memorize the images.",
        json_schema_extra=_in_group(Group.LENGTH),
    )
    batch_size: int = Field(
        2,
        ge=1,
        le=64,
        title="Batch size",
        description="Images per batch. Larger batches give smoother updates and need more memory.",
        json_schema_extra=_in_group(Group.LENGTH),
    )
    gradient_accumulation: int = Field(
        1,
        ge=1,
        le=64,
        title="Gradient accumulation steps",
        description="Average the gradients of this many batches per update. Acts like a larger "
        "batch without more memory, but each step takes that many times longer.",
        json_schema_extra=_in_group(Group.LENGTH),
    )
    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same seed and images give the same adapter.",
        json_schema_extra=_in_group(Group.LENGTH),
    )

    kind: AdapterKind = Field(
        AdapterKind.LORA,
        title="Adapter type",
        description="LoRA suits most styles. LoHa and LoKr use other matrix products; their "
        "files store an equivalent LoRA, which is larger.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    rank: int = Field(
        8,
        ge=1,
        le=256,
        title="Rank",
        description="Width of the adapter's matrices (network dim). Higher ranks can learn more "
        "and make larger files. 4 to 16 suits most styles.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    alpha: float = Field(
        8.0,
        gt=0,
        le=1_024,
        title="Alpha",
        description="Scale of the adapter: alpha ÷ rank. Alpha equal to rank gives 1.0.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    rank_stabilized: StrictBool = Field(
        False,
        title="Rank-stabilized LoRA",
        description="rsLoRA: scale by alpha ÷ √rank instead, so that high ranks learn as fast as "
        "low ones. The file works in every program.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    targets: Targets = Field(
        Targets.ATTENTION,
        title="Target modules",
        description="Layers that get an adapter. Attention is small and enough for most styles. "
        "Linear adds the feed-forward layers, all also adds the convolutions.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    blocks: str = Field(
        "all",
        pattern=BLOCKS_PATTERN,
        max_length=200,
        title="Target blocks",
        description="UNet blocks to train: all, or names separated by commas: down.0 to down.3, "
        "mid, up.0 to up.3, or a single attention of a block such as up.0.1. For SDXL also "
        "style or content (B-LoRA).",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    train_text_encoder: StrictBool = Field(
        False,
        title="Train the text encoder",
        description="Helps the model learn the meaning of the trigger word. Needs more time and "
        "memory.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    text_encoder_rank: int | None = Field(
        None,
        ge=1,
        le=256,
        title="Text encoder rank",
        description="Empty: same as rank.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    text_encoder_alpha: float | None = Field(
        None,
        gt=0,
        le=1_024,
        title="Text encoder alpha",
        description="Empty: the same alpha ÷ rank as the UNet.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    text_encoder_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        title="Text encoder training steps",
        description="Stop training the text encoder after this many steps. Empty: train it to "
        "the end.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )
    clip_skip: int = Field(
        1,
        ge=1,
        le=4,
        title="CLIP skip",
        description="Text encoder layer that the UNet reads, counted from the last: 1 for most "
        "base models, 2 for many anime models. Leave it at 1 for SDXL.",
        json_schema_extra=_in_group(Group.ADAPTER),
    )

    optimizer: Optimizer = Field(
        Optimizer.ADAMW,
        title="Optimizer",
        description="AdamW suits most runs. AdamW 8-bit needs less memory, Adafactor the least. "
        "Schedule-free AdamW needs no LR scheduler. Prodigy finds the learning rate itself "
        "within a few hundred steps.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=1,
        title="Learning rate",
        description="Size of each update. Too high ruins the images, too low learns nothing.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    text_encoder_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Text encoder learning rate",
        description="Empty: same as the learning rate.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    lora_plus_ratio: float | None = Field(
        None,
        ge=1,
        le=64,
        title="LoRA+ ratio",
        description="LoRA+: learning rate of the up matrices divided by that of the down "
        "matrices. 4 to 16 is typical. Empty: the same rate for both.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        le=1,
        title="Weight decay",
        description="Gently pulls the adapter's weights toward zero.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    lr_scheduler: LrScheduler = Field(
        LrScheduler.COSINE,
        title="LR scheduler",
        description="Learning rate over time: constant, falling along a cosine once or with "
        "restarts, or falling linearly.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    lr_cycles: int = Field(
        3,
        ge=1,
        le=100,
        title="LR scheduler cycles",
        description="Number of cycles of cosine with restarts; each falls from the full "
        "learning rate to zero.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        title="LR warmup steps",
        description="Steps in which the learning rate rises from zero.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    max_grad_norm: float = Field(
        1.0,
        ge=0,
        le=1_000,
        title="Max grad norm",
        description="Gradient clipping: larger gradients are scaled down to this norm. 0: off.",
        json_schema_extra=_in_group(Group.LEARNING),
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        title="EMA decay",
        description="Exponential moving average of the adapter's weights; the result is the "
        "average. 0.99 averages about 100 steps. Empty: off.",
        json_schema_extra=_in_group(Group.LEARNING),
    )

    prediction_type: PredictionType | None = Field(
        None,
        title="Prediction type",
        description="Epsilon or v-prediction; by default as the base model declares.",
        json_schema_extra=_in_group(Group.LOSS),
    )
    loss: Loss = Field(
        Loss.MSE,
        title="Loss",
        description="MSE, or pseudo-Huber, which gives outlier images less influence.",
        json_schema_extra=_in_group(Group.LOSS),
    )
    huber_delta: float = Field(
        0.1,
        gt=0,
        le=10,
        title="Huber delta",
        description="Errors above this count linearly instead of squared.",
        json_schema_extra=_in_group(Group.LOSS),
    )
    loss_weighting: LossWeighting = Field(
        LossWeighting.MIN_SNR,
        title="Loss weighting",
        description="Min-SNR and debiased give low noise levels less weight; none weights all "
        "noise levels equally.",
        json_schema_extra=_in_group(Group.LOSS),
    )
    snr_gamma: float = Field(
        5.0,
        gt=0,
        le=100,
        title="Min-SNR gamma",
        description="Signal-to-noise ratio at which min-SNR caps the weight; 5 is typical.",
        json_schema_extra=_in_group(Group.LOSS),
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Noise offset",
        description="Helps a base model without zero terminal SNR to learn very dark and very "
        "bright images; 0.05 is already strong.",
        json_schema_extra=_in_group(Group.NOISE),
    )
    multires_noise_discount: float | None = Field(
        None,
        gt=0,
        lt=1,
        title="Multi-resolution noise discount",
        description="Adds coarser noise; each coarser level is scaled by this factor. 0.1 to "
        "0.3 helps large even areas. Empty: off.",
        json_schema_extra=_in_group(Group.NOISE),
    )
    zero_terminal_snr: StrictBool = Field(
        False,
        title="Zero terminal SNR",
        description="Makes the last step of the noise schedule pure noise, for base models "
        "trained like that. Not needed if the base model declares it.",
        json_schema_extra=_in_group(Group.NOISE),
    )
    caption_dropout: float = Field(
        0.05,
        ge=0,
        le=1,
        title="Caption dropout",
        description="Share of images trained without their caption, so that the style does not "
        "depend on words.",
        json_schema_extra=_in_group(Group.CAPTIONS),
    )
    shuffle_tags: StrictBool = Field(
        False,
        title="Shuffle tags",
        description="Shuffles the comma-separated tags of a caption each time.",
        json_schema_extra=_in_group(Group.CAPTIONS),
    )
    keep_tags: int = Field(
        1,
        ge=0,
        le=50,
        title="Keep tags",
        description="Number of tags at the start of a caption that are not shuffled, such as "
        "the trigger word.",
        json_schema_extra=_in_group(Group.CAPTIONS),
    )

    resolution: int | None = Field(
        None,
        ge=32,
        le=2_048,
        multiple_of=8,
        title="Resolution",
        description="Side in pixels of a square training image, a multiple of 8. Empty: the "
        "base model's native resolution.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    aspect_buckets: StrictBool = Field(
        True,
        title="Aspect-ratio bucketing",
        description="Images keep roughly their aspect ratio; each batch has one shape. Off: all "
        "images are cropped to squares.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    flip: StrictBool = Field(
        False,
        title="Horizontal flip",
        description="Mirrors half of the images. Not for text, nor for styles with light from "
        "one side. Images marked “Never flip” are left as they are.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    masked_loss: StrictBool = Field(
        False,
        title="Masked loss",
        description="Uses alpha as the mask: transparent areas turn white and are not learned.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    unmasked_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Unmasked weight",
        description="Loss weight of transparent areas, relative to opaque ones.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    regularization_weight: float = Field(
        1.0,
        ge=0,
        le=10,
        title="Regularization loss weight",
        description="Prior loss weight: loss weight of a regularization image, relative to others.",
        json_schema_extra=_in_group(Group.PICTURES),
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        title="Validation split",
        description="Share of the images held out from training; their loss is measured at "
        "every checkpoint. 0: none.",
        json_schema_extra=_in_group(Group.PICTURES),
    )

    precision: Precision = Field(
        Precision.AUTO,
        title="Precision",
        description="Mixed precision of the base model. Auto picks the fastest on this machine. "
        "The adapter itself is always trained in fp32.",
        json_schema_extra=_in_group(Group.SPEED),
    )
    gradient_checkpointing: StrictBool = Field(
        False,
        title="Gradient checkpointing",
        description="Saves memory: activations are recomputed instead of stored. About 1.5 "
        "times slower, with much less memory.",
        json_schema_extra=_in_group(Group.SPEED),
    )
    compile: StrictBool = Field(
        False,
        title="Compile",
        description="Compiles the UNet for this NVIDIA GPU (torch.compile): a few minutes at the "
        "start, then faster steps.",
        json_schema_extra=_in_group(Group.SPEED),
    )

    checkpoint_every: int = Field(
        100,
        ge=0,
        le=100_000,
        title="Checkpoint every",
        description="Steps between checkpoints; each can be tried, used and continued from, and "
        "has a row of samples. 0: none on the way.",
        json_schema_extra=_in_group(Group.CHECKPOINTS),
    )
    keep_checkpoints: int = Field(
        2,
        ge=1,
        le=100,
        title="Keep checkpoints",
        description="Number of training states to keep, to continue from; older ones are deleted. "
        "Those you saved or kept stay.",
        json_schema_extra=_in_group(Group.CHECKPOINTS),
    )
    keep_adapters: int | None = Field(
        None,
        ge=1,
        le=1_000,
        title="Keep adapters",
        description="Number of checkpoints whose adapter is kept, to try and use; older ones are "
        "deleted. Those you saved or kept stay. None: all.",
        json_schema_extra=_in_group(Group.CHECKPOINTS),
    )

    evaluate: StrictBool = Field(
        False,
        title="Evaluate at the end",
        description="Afterwards compares the checkpoints by style, adherence to the prompts and "
        "copying, and says which one to keep. Of 16 images or more, 15 %, at least 4, are held out "
        "for that, unless a validation split is set.",
        json_schema_extra=_in_group(Group.CHECKPOINTS),
    )
    patience: int = Field(
        0,
        ge=0,
        le=100,
        title="Stop by itself after",
        description="Checkpoints without a closer style after which the training ends and keeps "
        "its adapter; it also ends when it begins to copy its images. Each checkpoint draws a few "
        "subjects for that. 0: never.",
        json_schema_extra=_in_group(Group.CHECKPOINTS),
    )

    sample_every: int = Field(
        100,
        ge=0,
        le=100_000,
        title="Sample every",
        description="Steps between two rows of samples; checkpoints have one too. 0: only those, "
        "the first and the last row.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )
    sample_prompts: list[PromptLine] = Field(
        default_factory=list,
        max_length=MAX_SAMPLE_PROMPTS,
        title="Sample prompts",
        description="One prompt per line, rendered at regular steps while the adapter learns. "
        "Options at the end of a line: --d seed, --w width, --h height, --l guidance, --s steps, "
        "--n negative prompt, --a adapter weight.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )
    sample_negative_prompt: str = Field(
        "",
        max_length=MAX_PROMPT_LENGTH,
        title="Negative prompt",
        description="What the samples should not show.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )
    sample_steps: int = Field(
        20,
        ge=1,
        le=150,
        title="Sampling steps",
        description="Denoising steps per sample.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )
    sample_guidance: float = Field(
        7.0,
        ge=0,
        le=30,
        title="Guidance scale",
        description="CFG scale: how closely samples follow their prompt. 1 or less: no guidance.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )
    sample_seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        title="Sample seed",
        description="Seed of the first prompt; the second uses the next seed, and so on. Every "
        "row uses the same seeds, so rows differ only in the adapter.",
        json_schema_extra=_in_group(Group.SAMPLES),
    )

    @property
    def images_per_step(self) -> int:
        """Number of images per step: the effective batch size."""
        return self.batch_size * self.gradient_accumulation

    @property
    def step_cost(self) -> float:
        """Cost of a step, relative to a single batch without gradient checkpointing."""
        return self.gradient_accumulation * (CHECKPOINTING if self.gradient_checkpointing else 1.0)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)

    @field_validator("sample_prompts")
    @classmethod
    def _check_prompts(cls, value: list[str]) -> list[str]:
        for line in value:
            parse_prompt(line)
        return value

    @field_validator("text_encoder_learning_rate", "lora_plus_ratio")
    @classmethod
    def _one_rate(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") is Optimizer.PRODIGY:
            raise ValueError("Prodigy finds one learning rate for everything: leave this empty.")
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
            raise ValueError("Schedule-free AdamW needs no LR scheduler: choose constant.")
        return value

    @field_validator("ema_decay")
    @classmethod
    def _one_average(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") is Optimizer.ADAMW_SCHEDULE_FREE:
            raise ValueError("Schedule-free AdamW averages by itself: leave this empty.")
        return value


class TrainJob(BaseModel):
    """Input of `python -m worker.core.training config.json`: the paths and the config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="Folder or .safetensors file of the base model.")
    data: Path | list[Path] = Field(
        description="Folder of images with metadata.jsonl or .txt captions, or a list of folders, "
        "each with its repeats after a colon if it has any."
    )
    out: Path = Field(description="Folder for the adapter, the samples and the checkpoints.")
    cache: Path | None = Field(None, description="Folder of encoded images, kept between runs.")
    config: TrainConfig = Field(default_factory=lambda: TrainConfig())
