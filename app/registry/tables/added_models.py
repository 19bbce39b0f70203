"""Tables of the models that people add, base models and caption models, with measurements."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path

import pydantic
import sqlalchemy as sa
from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, PlainJSON, utcnow
from app.registry.hub_source import SCHEME, HubSource, read_source
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow
from worker.core import starter
from worker.core.captioning import words as captioning
from worker.core.families.facts.family_facts import FamilyOptions, UsualDrawing
from worker.core.families.family import (
    FALLBACK_FAMILY,
    family_label,
    find_family,
    usual_drawing,
)
from worker.core.families.variants import Variant

EMBEDDED = "starter"
RETIRED = f"{EMBEDDED}@"  # followed by a part of the fingerprint: the source of a retired one
NOT_SHIPPED = (
    "The base model “{name}” is no longer shipped with Brushwork, so nothing new can be made with "
    "it. What was made with it stays. Choose another base model."
)


class ModelStatus(StrEnum):
    """Status of a model; only READY ones can be used, and only base models are REMOVED."""

    DOWNLOADING = "downloading"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"
    REMOVED = "removed"


CHANGING = (ModelStatus.DOWNLOADING, ModelStatus.CHECKING)  # until an io worker is done


class AddedModel(Owned, NumberedRow):
    """A model from the Hub or from a path on this machine."""

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=120)
    source: str = Field(unique=True)
    """Path, or hf://owner/name. Of base models also `starter` for the embedded one, and `starter@…`
    for one that an older version had embedded."""
    local_path: str | None = Field(default=None, description="Path of a download from the Hub.")
    revision: str | None = Field(default=None, max_length=64)
    """The commit of a download from the Hub."""
    status: str = Field(default=ModelStatus.CHECKING, max_length=16)
    error: str | None = None
    family: str | None = Field(default=None, max_length=16, description="Such as sd1, florence2.")
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)

    @property
    def is_from_hub(self) -> bool:
        """True if its files come from the Hub."""
        return self.source.startswith(SCHEME)

    @property
    def hub_source(self) -> HubSource | None:
        """The repository that its files come from; None for a path."""
        return read_source(self.source) if self.is_from_hub else None

    @property
    def reason(self) -> str | None:
        """The sentence of the row on why it cannot be used, if any."""
        return self.error

    @property
    def place(self) -> str:
        """Its source as shown to users."""
        return self.source.removeprefix(SCHEME)

    @property
    def location(self) -> Path:
        """Path of its files on this machine."""
        return Path(self.local_path or self.source)


class BaseMemory(pydantic.BaseModel):
    """The memory that a base model takes on a GPU at its own side, computed and not measured."""

    training_bytes: int = pydantic.Field(
        description="Of a training in bf16: a LoRA of rank 8 in attention, batch size 1, with "
        "gradient checkpointing."
    )
    int8_training_bytes: int = pydantic.Field(
        description="The same with frozen weights as int8 rows."
    )
    drawing_bytes: int = pydantic.Field(description="Of an image.")


class BaseModel(AddedModel, table=True):
    """A diffusers folder or single file that adapters are trained on."""

    __tablename__ = "base_model"
    __table_args__ = (
        sa.CheckConstraint(
            "status IN ('downloading', 'checking', 'ready', 'failed', 'removed')", name="status"
        ),
    )

    prediction_type: str | None = Field(default=None, max_length=16)
    variant: str | None = Field(default=None, max_length=16)
    """base, turbo or dedistilled, where it matters."""
    resolution: int | None = Field(default=None, description="Native side length in pixels.")
    cross_attention_dim: int | None = None
    parameters: dict[str, int] = Field(default_factory=dict, sa_type=sa.JSON)
    fingerprint: str | None = Field(default=None, max_length=64)
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def is_retired(self) -> bool:
        """True for an embedded base model of an older version, whose files are gone.

        Its status is REMOVED.
        """
        return self.source.startswith(RETIRED)

    @property
    def reason(self) -> str | None:
        """The sentence of the row on why it cannot be used, if any."""
        return NOT_SHIPPED.format(name=self.name) if self.is_retired else self.error

    @property
    def place(self) -> str:
        """Its source as shown to users."""
        return "built into an older version" if self.is_retired else super().place

    @property
    def location(self) -> Path:
        """Path of its files on this machine; those of a retired one are nowhere."""
        if self.is_retired:
            return starter.PATH.with_name(self.source)
        return starter.PATH if self.source == EMBEDDED else super().location

    @property
    def original_name(self) -> str:
        """The name that files made with it carry; a retired one was renamed since."""
        return EMBEDDED if self.is_retired else self.name

    @property
    def tunable_parameters(self) -> int | None:
        """Number of parameters of UNet and text encoders; None if unknown."""
        return sum(count for part, count in self.parameters.items() if part != "vae") or None

    @property
    def family_label(self) -> str:
        """The common name of the family."""
        return family_label(self.family)

    @property
    def options(self) -> FamilyOptions:
        """The settings that its family has."""
        return (find_family(self.family) or FALLBACK_FAMILY).facts.options

    @property
    def untrained(self) -> str:
        """Why no adapter can be trained on it, and what works instead; "" where one can."""
        return self.drawing.untrained if self.drawing else ""

    @property
    def drawing(self) -> UsualDrawing | None:
        """How images are drawn with it, if that is not as with any other."""
        variant = Variant(self.variant) if self.variant else None
        return usual_drawing(find_family(self.family), variant)

    @property
    def memory(self) -> BaseMemory | None:
        """The memory that it takes on a GPU; None if nearly every GPU has enough, or unknown."""
        family = find_family(self.family)
        facts = family.facts.memory if family else None
        if facts is None or self.resolution is None or not self.parameters:
            return None
        return BaseMemory(
            training_bytes=facts.training_bytes(self.parameters, self.resolution),
            int8_training_bytes=facts.training_bytes(self.parameters, self.resolution, int8=True),
            drawing_bytes=facts.drawing_bytes(self.parameters),
        )


class BaseSpeed(NumberedRow, table=True):
    """Measured cost of a training step on this machine, from worker warm-up and from runs.

    `seconds_per_step` is for one batch that keeps all activations (`TrainConfig.step_cost` 1), the
    median of `recent_seconds`, the last measurements of at least `MEASURED_STEPS` steps.
    """

    __tablename__ = "base_speed"
    __table_args__ = (
        sa.UniqueConstraint("base_model_id", "batch_size", "resolution", "rank", "layers"),
    )

    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    batch_size: int
    resolution: int
    rank: int
    layers: str = Field(default="", max_length=255, description="Summary of the trained layers.")
    seconds_per_step: float
    recent_seconds: list[float] = Field(default_factory=list, sa_type=PlainJSON)
    trainable_parameters: int
    adapter_bytes: int = Field(description="Size of the fp16 adapter file.")
    measured_at: datetime = Field(default_factory=utcnow)


class BasePrecision(NumberedRow, table=True):
    """The precision in which a machine generates images with a base model, chosen once.

    The measurements are for a call of the UNet at this size; None if there was nothing to choose.
    """

    __tablename__ = "base_precision"
    __table_args__ = (sa.UniqueConstraint("base_model_id", "machine"),)

    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    machine: str = Field(max_length=40, description="What the choice depends on besides the base.")
    fingerprint: str | None = Field(default=None, max_length=64, description="Of the base's files.")
    precision: str = Field(max_length=8)
    processor: str = Field(default="", max_length=80)
    width: int | None = None
    height: int | None = None
    fp32_seconds: float | None = None
    bf16_seconds: float | None = None
    step_effect: float | None = None
    """Share of a small weight step that is left in bf16."""
    chosen_at: datetime = Field(default_factory=utcnow)

    @property
    def reason(self) -> str:
        """The reason for this precision, in one sentence; empty if there was no choice."""
        if self.fp32_seconds is None or self.bf16_seconds is None or self.step_effect is None:
            return ""
        return (
            f"Measured at {self.width} × {self.height} on {self.processor}: a step takes "
            f"{self.fp32_seconds:.2g} s in fp32 and {self.bf16_seconds:.2g} s in bf16, which keeps "
            f"{self.step_effect:.0%} of a weight step of 0.05."
        )


class CaptionModel(AddedModel, table=True):
    """A model that captions images on this machine, from the Hub or a folder."""

    __tablename__ = "caption_model"
    __table_args__ = AUTOINCREMENT

    created_at: datetime = Field(default_factory=utcnow)

    @property
    def family_label(self) -> str:
        """The common name of its kind; empty while unknown."""
        return captioning.family_label(self.family)
