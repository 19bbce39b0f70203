"""The words in which a base model is described, and the error of one that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

Shapes = Mapping[str, tuple[int, ...]]
PredictionType = Literal["epsilon", "v_prediction"]


class BaseModelError(Exception):
    """A base model that cannot be used; the message is a sentence for people."""


class BaseFamily(StrEnum):
    """The architecture of a base, known by its shapes."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"


@dataclass(frozen=True)
class BaseInfo:
    """What is known of a base model without loading it.

    `resolution` is the native side in pixels; `parameters` counts numbers by component;
    `fingerprint` is a SHA-256 over headers, sizes and samples of the weights;
    `zero_empty_negative` says that an empty negative prompt means zeros (SDXL), not a text.
    """

    path: Path
    layout: Literal["diffusers", "single_file"]
    family: BaseFamily
    prediction_type: PredictionType
    resolution: int
    cross_attention_dim: int
    parameters: dict[str, int]
    size_bytes: int
    fingerprint: str
    zero_empty_negative: bool


def family_of(
    *, cross_attention_dim: int, two_encoders: bool, size_conditioned: bool
) -> BaseFamily:
    """The family by its shapes: two encoders mean SDXL, text states 1024 wide mean SD 2."""
    if two_encoders and size_conditioned:
        return BaseFamily.SDXL
    if two_encoders or size_conditioned:
        raise BaseModelError(
            "This is a refiner or another special model; Brushwork needs a whole SD 1.x, SD 2.x "
            "or SDXL base model."
        )
    return BaseFamily.SD2 if cross_attention_dim == 1024 else BaseFamily.SD1


def cross_attention_width(unet: Shapes) -> int:
    """How wide the text states are that the UNet's cross-attention reads."""
    for name, shape in unet.items():
        if name.endswith("attn2.to_k.weight") and len(shape) == 2:
            return shape[1]
    raise BaseModelError(
        "The model's UNet has no cross-attention, so it is not an SD 1.x, SD 2.x or SDXL model."
    )
