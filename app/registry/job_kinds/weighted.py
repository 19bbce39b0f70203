"""Adapters with their weights: as a person names them, and as renders and jobs store them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, Field, StringConstraints

from app.registry.slugs import Reference, RowId
from worker.core.documented import DocumentedModel
from worker.core.inference.config import AdapterWeight, OptionalBlockWeights
from worker.core.lora_files.parts import Part
from worker.core.lora_files.weights import USUAL_WEIGHT

Label = Annotated[str, StringConstraints(max_length=200)]
VersionName = Annotated[str, StringConstraints(min_length=1, max_length=60)]
VersionReference = Annotated[
    RowId | VersionName | None,
    Field(description="A version number or an alias such as `best`; absent: `latest`."),
]
ImageT = TypeVar("ImageT")
OF_ANSWERS = "Its {} in an answer; ignored in a request."
READ_ONLY: dict[str, Any] = {"readOnly": True}
NAMED = AliasChoices("id", "adapter_id")
ONLY_OF_RENDERS = {"sha256", "base_model_id", "clip_skip"}


class WeightedAdapter(DocumentedModel, frozen=True, extra="forbid"):
    """An adapter with its weights, as named.

    The weight defaults to the usual one of the version, that of the text encoders to the UNet's.
    """

    adapter_id: Reference = Field(validation_alias=NAMED, serialization_alias="id")
    """Id or slug of the adapter."""
    version: VersionReference = None
    weight: AdapterWeight | None = None
    """1: as trained; 0: off; negative: the opposite; absent: the usual weight of the version."""
    text_encoder_weight: AdapterWeight | None = None
    """Weight in the text encoders; absent: the same as `weight`."""
    block_weights: OptionalBlockWeights = None
    """Factors of `weight` in the blocks of the UNet; absent: 1 in all."""
    name: Label | None = Field(
        None, description=OF_ANSWERS.format("name"), json_schema_extra=READ_ONLY
    )
    slug: Label | None = Field(
        None, description=OF_ANSWERS.format("slug"), json_schema_extra=READ_ONLY
    )


class ResolvedAdapter(WeightedAdapter, frozen=True, extra="ignore"):
    """An adapter whose version was looked up, as `Render.adapters` and job arguments store it."""

    adapter_id: int = Field(validation_alias=NAMED)
    version: int
    weight: AdapterWeight = USUAL_WEIGHT
    version_id: int
    name: str
    slug: str
    sha256: str = ""
    base_model_id: int | None = None
    clip_skip: int = 1

    @property
    def named(self) -> WeightedAdapter:
        """The adapter with its weights, as a request names it."""
        return WeightedAdapter(**self.model_dump(include=set(WeightedAdapter.model_fields)))

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of the UNet and of the text encoders."""
        text = self.weight if self.text_encoder_weight is None else self.text_encoder_weight
        return self.weight, text

    @property
    def factors_by_part(self) -> Mapping[Part, float]:
        """The block weights by the part of the UNet; empty where there are none."""
        return {} if self.block_weights is None else self.block_weights.by_part

    @property
    def is_off(self) -> bool:
        """True if both weights are zero, so that the adapter changes nothing."""
        return not any(self.weights)

    def with_weight(self, weight: float) -> ResolvedAdapter:
        """The adapter at another weight, in the text encoders too unless theirs was another one."""
        unet, text = self.weights
        return self.model_copy(
            update={"weight": weight, "text_encoder_weight": weight if text == unet else text}
        )

    def for_render(self) -> dict[str, Any]:
        """The JSON that `Render.adapters` stores, with the text encoder weight filled in."""
        return self._stored() | {"text_encoder_weight": self.weights[1]}

    def for_job(self) -> dict[str, Any]:
        """The JSON that the `parts` of a merge or fuse job store."""
        return self._stored(exclude=ONLY_OF_RENDERS)

    def _stored(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """The JSON, without block weights where there are none, as in older rows."""
        without = {"block_weights"} if self.block_weights is None else set()
        return self.model_dump(exclude={*exclude, *without})


def in_parts(
    images: Iterable[tuple[ImageT, Collection[str]]], *, most: int, adapters: int
) -> list[list[ImageT]]:
    """The images in their order, in parts of at most `most` images with so many adapters together.

    `images`: each with the keys of its adapters; it may have more of them alone.
    """
    parts: list[list[ImageT]] = []
    known: set[str] = set()
    for image, keys in images:
        if not parts or len(parts[-1]) == most or len(known.union(keys)) > adapters:
            parts.append([])
            known = set()
        parts[-1].append(image)
        known.update(keys)
    return parts
