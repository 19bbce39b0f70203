"""Settings of a training run: one model for the form, the API, the command line and the file.

Imports only pydantic, so that the web front end can validate a form without loading torch.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from worker.core.documented import DocumentedModel
from worker.core.old_names import accept_old_names
from worker.core.training.prompts import parse_prompt
from worker.core.words import Labeled, LevelDensity, LossWeighting, PredictionType

MAX_SAMPLE_PROMPTS = 8
MAX_PROMPT_LENGTH = 1_000
MAX_SEED = 2**32 - 1
CHECKPOINTING = 1.5  # times as long: each forward pass is computed twice
BLOCK = r"(down\.[0-3]|mid|up\.[0-3])(\.[0-3])?"
BLOCKS_PATTERN = rf"^(all|style|content|{BLOCK}( *, *{BLOCK})*)$"


class Group(Labeled):
    """The section of the form that a field belongs to, in the order the form shows them."""

    LENGTH = "length", "Length"
    ADAPTER = "adapter", "Adapter"
    LEARNING = "learning", "Optimization"
    LOSS = "loss", "Loss"
    NOISE = "noise", "Noise"
    CAPTIONS = "captions", "Captions"
    PICTURES = "pictures", "Images"
    SPEED = "speed", "Speed and memory"
    CHECKPOINTS = "checkpoints", "Checkpoints"
    SAMPLES = "samples", "Samples"

    def field(self, *default: Any, **facts: Any) -> Any:
        """A field of this section; its title is its name, unless another one is given."""
        return Field(*default, json_schema_extra={"group": self.value}, **facts)


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


class BaseWeights(StrEnum):
    """Number type in which the frozen weights of a large base model are kept in memory."""

    AUTO = "auto"
    BF16 = "bf16"
    INT8 = "int8"


class Loss(StrEnum):
    """Distance between a prediction and its target."""

    MSE = "mse"
    HUBER = "huber"


PromptLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_LENGTH)
]


class TrainConfig(DocumentedModel):
    """All settings of one training run; unknown fields are rejected."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        field_title_generator=lambda name, _: name.replace("_", " ").capitalize(),
    )

    steps: int = Group.LENGTH.field(1_000, ge=1, le=100_000)
    """Training steps. More steps learn the style better, then start to memorize the images."""

    batch_size: int = Group.LENGTH.field(2, ge=1, le=64)
    """Images per batch. Larger batches give smoother updates and need more memory."""

    gradient_accumulation: int = Group.LENGTH.field(
        1, ge=1, le=64, title="Gradient accumulation steps"
    )
    """Average the gradients of this many batches per update. Acts like a larger batch without more
    memory, but each step takes that many times longer."""

    seed: int = Group.LENGTH.field(0, ge=0, le=MAX_SEED)
    """The same seed and images give the same adapter."""

    kind: AdapterKind = Group.ADAPTER.field(AdapterKind.LORA, title="Adapter type")
    """LoRA suits most styles. LoHa and LoKr use other matrix products; their files store an
    equivalent LoRA, which is larger."""

    rank: int = Group.ADAPTER.field(8, ge=1, le=256)
    """Width of the adapter's matrices (network dim). Higher ranks can learn more and make larger
    files. 4 to 16 suits most styles."""

    alpha: float = Group.ADAPTER.field(8.0, gt=0, le=1_024)
    """Scale of the adapter: alpha ÷ rank. Alpha equal to rank gives 1.0."""

    rank_stabilized: StrictBool = Group.ADAPTER.field(False, title="Rank-stabilized LoRA")
    """rsLoRA: scale by alpha ÷ √rank instead, so that high ranks learn as fast as low ones. The
    file works in every program."""

    targets: Targets = Group.ADAPTER.field(Targets.ATTENTION, title="Target modules")
    """Layers that get an adapter. Attention is small and enough for most styles. Linear adds the
    feed-forward layers, all also adds the convolutions."""

    blocks: str = Group.ADAPTER.field(
        "all", pattern=BLOCKS_PATTERN, max_length=200, title="Target blocks"
    )
    """UNet blocks to train: all, or names separated by commas: down.0 to down.3, mid, up.0 to up.3,
    or a single attention of a block such as up.0.1. For SDXL also style or content (B-LoRA)."""

    train_text_encoder: StrictBool = Group.ADAPTER.field(False, title="Train the text encoder")
    """Helps the model learn the meaning of the trigger word. Needs more time and memory."""

    text_encoder_rank: int | None = Group.ADAPTER.field(None, ge=1, le=256)
    """Empty: same as rank."""

    text_encoder_alpha: float | None = Group.ADAPTER.field(None, gt=0, le=1_024)
    """Empty: the same alpha ÷ rank as the UNet."""

    text_encoder_steps: int | None = Group.ADAPTER.field(
        None, ge=1, le=100_000, title="Text encoder training steps"
    )
    """Stop training the text encoder after this many steps. Empty: train it to the end."""

    clip_skip: int = Group.ADAPTER.field(1, ge=1, le=4, title="CLIP skip")
    """Text encoder layer that the UNet reads, counted from the last: 1 for most base models, 2 for
    many anime models. Leave it at 1 for SDXL."""

    optimizer: Optimizer = Group.LEARNING.field(Optimizer.ADAMW)
    """AdamW suits most runs. AdamW 8-bit needs less memory, Adafactor the least. Schedule-free
    AdamW needs no LR scheduler. Prodigy finds the learning rate itself within a few hundred steps.
    """

    learning_rate: float = Group.LEARNING.field(1e-4, gt=0, le=1)
    """Size of each update. Too high ruins the images, too low learns nothing."""

    text_encoder_learning_rate: float | None = Group.LEARNING.field(None, gt=0, le=1)
    """Empty: same as the learning rate."""

    lora_plus_ratio: float | None = Group.LEARNING.field(None, ge=1, le=64, title="LoRA+ ratio")
    """LoRA+: learning rate of the up matrices divided by that of the down matrices. 4 to 16 is
    typical. Empty: the same rate for both."""

    weight_decay: float = Group.LEARNING.field(0.01, ge=0, le=1)
    """Gently pulls the adapter's weights toward zero."""

    lr_scheduler: LrScheduler = Group.LEARNING.field(LrScheduler.COSINE, title="LR scheduler")
    """Learning rate over time: constant, falling along a cosine once or with restarts, or falling
    linearly."""

    lr_cycles: int = Group.LEARNING.field(3, ge=1, le=100, title="LR scheduler cycles")
    """Number of cycles of cosine with restarts; each falls from the full learning rate to zero."""

    warmup_steps: int = Group.LEARNING.field(0, ge=0, le=10_000, title="LR warmup steps")
    """Steps in which the learning rate rises from zero."""

    max_grad_norm: float = Group.LEARNING.field(1.0, ge=0, le=1_000)
    """Gradient clipping: larger gradients are scaled down to this norm. 0: off."""

    ema_decay: float | None = Group.LEARNING.field(None, ge=0, lt=1, title="EMA decay")
    """Exponential moving average of the adapter's weights; the result is the average. 0.99 averages
    about 100 steps. Empty: off."""

    prediction_type: PredictionType | None = Group.LOSS.field(None)
    """Epsilon or v-prediction; by default as the base model declares."""

    loss: Loss = Group.LOSS.field(Loss.MSE)
    """MSE, or pseudo-Huber, which gives outlier images less influence."""

    huber_delta: float = Group.LOSS.field(0.1, gt=0, le=10)
    """Errors above this count linearly instead of squared."""

    loss_weighting: LossWeighting = Group.LOSS.field(LossWeighting.MIN_SNR)
    """Min-SNR and debiased give low noise levels less weight; none weights all noise levels
    equally."""

    snr_gamma: float = Group.LOSS.field(5.0, gt=0, le=100, title="Min-SNR gamma")
    """Signal-to-noise ratio at which min-SNR caps the weight; 5 is typical."""

    noise_offset: float = Group.NOISE.field(0.0, ge=0, le=1)
    """Helps a base model without zero terminal SNR to learn very dark and very bright images; 0.05
    is already strong."""

    multires_noise_discount: float | None = Group.NOISE.field(
        None, gt=0, lt=1, title="Multi-resolution noise discount"
    )
    """Adds coarser noise; each coarser level is scaled by this factor. 0.1 to 0.3 helps large even
    areas. Empty: off."""

    zero_terminal_snr: StrictBool = Group.NOISE.field(False, title="Zero terminal SNR")
    """Makes the last step of the noise schedule pure noise, for base models trained like that. Not
    needed if the base model declares it."""

    noise_focus: float = Group.NOISE.field(0.0, ge=-1, le=1, title="Look or detail")
    """Share of noise levels: above 0 more steps at high noise, where the whole look is learned;
    below 0 more at low noise, where detail is. 0: all equally. On starter, 0.5 made the style a
    little weaker, -0.5 copied a little more."""

    flow_shift: float = Group.NOISE.field(3.0, ge=0.1, le=20)
    """For transformer bases: above 1 more steps at high noise, where the whole look is learned.
    Images are drawn with the shift of the base model, whatever this is."""

    level_density: LevelDensity = Group.NOISE.field(
        LevelDensity.UNIFORM, title="Noise level density"
    )
    """For transformer bases: uniform, or logit-normal, which has more steps at medium noise levels.
    The flow shift moves both."""

    caption_dropout: float = Group.CAPTIONS.field(0.05, ge=0, le=1)
    """Share of images trained without their caption, so that the style does not depend on words."""

    shuffle_tags: StrictBool = Group.CAPTIONS.field(False)
    """Shuffles the comma-separated tags of a caption each time."""

    keep_tags: int = Group.CAPTIONS.field(1, ge=0, le=50)
    """Number of tags at the start of a caption that are not shuffled, such as the trigger word."""

    resolution: int | None = Group.PICTURES.field(None, ge=32, le=2_048, multiple_of=8)
    """Side in pixels of a square training image, a multiple of 8, for transformer bases of 16.
    Empty: the base model's native resolution."""

    aspect_buckets: StrictBool = Group.PICTURES.field(True, title="Aspect-ratio bucketing")
    """Images keep roughly their aspect ratio; each batch has one shape. Off: all images are cropped
    to squares."""

    flip: StrictBool = Group.PICTURES.field(False, title="Horizontal flip")
    """Mirrors half of the images. Not for text, nor for styles with light from one side. Images
    marked “Never flip” are left as they are."""

    masked_loss: StrictBool = Group.PICTURES.field(False)
    """Uses alpha as the mask: transparent areas turn white and are not learned."""

    unmasked_weight: float = Group.PICTURES.field(0.0, ge=0, le=1)
    """Loss weight of transparent areas, relative to opaque ones."""

    regularization_weight: float = Group.PICTURES.field(
        1.0, ge=0, le=10, title="Regularization loss weight"
    )
    """Prior loss weight: loss weight of a regularization image, relative to others."""

    validation_share: float = Group.PICTURES.field(0.0, ge=0, le=0.5, title="Validation split")
    """Share of the images held out from training; their loss is measured at every checkpoint. 0:
    none."""

    validation_seed: int | None = Group.PICTURES.field(None, ge=0, le=MAX_SEED)
    """Seed of which images are held out, and of what is measured on them. Empty: same as the seed.
    """

    precision: Precision = Group.SPEED.field(Precision.AUTO)
    """Mixed precision of the base model. Auto picks the fastest on this machine. The adapter itself
    is always trained in fp32."""

    base_weights: BaseWeights = Group.SPEED.field(BaseWeights.AUTO, title="Frozen weights")
    """For transformer bases: number type of the weights that are not trained. Int8 needs half the
    memory of bf16 and rounds a little. Auto takes bf16 if it fits."""

    gradient_checkpointing: StrictBool = Group.SPEED.field(False)
    """Saves memory: activations are recomputed instead of stored. About 1.5 times slower, with much
    less memory."""

    compile: StrictBool = Group.SPEED.field(False)
    """Compiles the denoiser for this NVIDIA GPU (torch.compile): a few minutes at the start, then
    faster steps."""

    checkpoint_every: int = Group.CHECKPOINTS.field(100, ge=0, le=100_000)
    """Steps between checkpoints; each can be tried, used and continued from, and has a row of
    samples. 0: none on the way."""

    keep_checkpoints: int = Group.CHECKPOINTS.field(2, ge=1, le=100)
    """Number of training states to keep, to continue from; older ones are deleted. Those you saved
    or kept stay."""

    keep_adapters: int | None = Group.CHECKPOINTS.field(None, ge=1, le=1_000)
    """Number of checkpoints whose adapter is kept, to try and use; older ones are deleted. Those
    you saved or kept stay. None: all."""

    evaluate: StrictBool = Group.CHECKPOINTS.field(False, title="Evaluate at the end")
    """Afterwards compares the checkpoints by style, adherence to the prompts and copying, and says
    which one to keep. Of 16 images or more, 15 %, at least 4, are held out for that, unless a
    validation split is set."""

    patience: int = Group.CHECKPOINTS.field(0, ge=0, le=100, title="Stop by itself after")
    """Checkpoints without a closer style after which the training ends and keeps its adapter; it
    also ends when it begins to copy its images. Each checkpoint draws a few subjects for that. 0:
    never."""

    sample_every: int = Group.SAMPLES.field(100, ge=0, le=100_000)
    """Steps between two rows of samples; checkpoints have one too. 0: only those, the first and the
    last row."""

    sample_prompts: list[PromptLine] = Group.SAMPLES.field(
        default_factory=list, max_length=MAX_SAMPLE_PROMPTS
    )
    """One prompt per line, rendered at regular steps while the adapter learns. Options at the end
    of a line: --d seed, --w width, --h height, --l guidance, --s steps, --n negative prompt, --a
    adapter weight."""

    sample_negative_prompt: str = Group.SAMPLES.field(
        "", max_length=MAX_PROMPT_LENGTH, title="Negative prompt"
    )
    """What the samples should not show."""

    sample_steps: int = Group.SAMPLES.field(20, ge=1, le=150, title="Sampling steps")
    """Denoising steps per sample."""

    sample_guidance: float = Group.SAMPLES.field(7.0, ge=0, le=30, title="Guidance scale")
    """CFG scale: how closely samples follow their prompt. 1 or less: no guidance."""

    sample_seed: int = Group.SAMPLES.field(0, ge=0, le=MAX_SEED)
    """Seed of the first prompt; the second uses the next seed, and so on. Every row uses the same
    seeds, so rows differ only in the adapter."""

    @property
    def images_per_step(self) -> int:
        """Number of images per step: the effective batch size."""
        return self.batch_size * self.gradient_accumulation

    @property
    def measuring_seed(self) -> int:
        """Seed of the held-out images and of the losses on them and on the fixed images."""
        return self.seed if self.validation_seed is None else self.validation_seed

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


class TrainJob(DocumentedModel):
    """Input of `python -m worker.core.training config.json`: the paths and the config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    """Folder or .safetensors file of the base model."""

    data: Path | list[Path]
    """Folder of images with metadata.jsonl or .txt captions, or a list of folders, each with its
    repeats after a colon if it has any."""

    out: Path
    """Folder for the adapter, the samples and the checkpoints."""

    cache: Path | None = Field(None)
    """Folder of encoded images, kept between runs."""

    config: TrainConfig = Field(default_factory=lambda: TrainConfig())
