"""The description of a base model, and the error for one that cannot be used."""

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
    """The architecture of a base model, recognized by its shapes."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"

    @property
    def facts(self) -> FamilyFacts:
        """Labels, sizes and the names that other programs use."""
        return _FACTS[self]

    @property
    def label(self) -> str:
        """The family in few words: SD 1.x."""
        return _FACTS[self].short_label


@dataclass(frozen=True, kw_only=True)
class FamilyFacts:
    """Properties of every base model of a family.

    `native_side` is in pixels; `text_width` is that of the states which the UNet's cross-attention
    reads; `unet_parameters` are those of the published UNet, which a LoRA from elsewhere was made
    for; `latent_scale` is the autoencoder's scaling factor. `kohya_version` is kohya's
    `ss_base_model_version`, `architecture` the id of Stability-AI/ModelSpec (`architecture_v` where
    v-prediction has another), `sidecar_version` what A1111's cards call it, `hub_tag` the Hub.
    """

    label: str
    short_label: str
    native_side: int
    text_width: int
    unet_parameters: int
    latent_scale: float
    kohya_version: str
    architecture: str
    architecture_v: str
    sidecar_version: str
    hub_tag: str


_FACTS = {
    BaseFamily.SD1: FamilyFacts(
        label="Stable Diffusion 1.x",
        short_label="SD 1.x",
        native_side=512,
        text_width=768,
        unet_parameters=859_520_964,
        latent_scale=0.18215,
        kohya_version="sd_1.5",
        architecture="stable-diffusion-v1",
        architecture_v="stable-diffusion-v1",
        sidecar_version="SD1",
        hub_tag="stable-diffusion",
    ),
    BaseFamily.SD2: FamilyFacts(
        label="Stable Diffusion 2.x",
        short_label="SD 2.x",
        native_side=768,
        text_width=1024,
        unet_parameters=865_910_724,
        latent_scale=0.18215,
        kohya_version="sd_v2",
        architecture="stable-diffusion-v2-512",
        architecture_v="stable-diffusion-v2-768-v",
        sidecar_version="SD2",
        hub_tag="stable-diffusion",
    ),
    BaseFamily.SDXL: FamilyFacts(
        label="SDXL",
        short_label="SDXL",
        native_side=1024,
        text_width=2048,
        unet_parameters=2_567_463_684,
        latent_scale=0.13025,
        kohya_version="sdxl_base_v1-0",
        architecture="stable-diffusion-xl-v1-base",
        architecture_v="stable-diffusion-xl-v1-base",
        sidecar_version="SDXL",
        hub_tag="stable-diffusion-xl",
    ),
}
FALLBACK_FAMILY = BaseFamily.SD1  # of a row from before families were stored


def find_family(name: str | None) -> BaseFamily | None:
    """The family of this stored name; None for one that is not known here."""
    return BaseFamily(name) if name in set(BaseFamily) else None


def family_label(name: str | None) -> str:
    """The label of a stored family name; "unknown" for one that is not known here."""
    family = find_family(name)
    return family.label if family else "unknown"


@dataclass(frozen=True)
class BaseInfo:
    """The facts about a base model that are known without loading it.

    `resolution` is the native side in pixels; `parameters` counts parameters by component;
    `fingerprint` is a SHA-256 over headers, sizes and samples of the weights; `zero_empty_negative`
    means that an empty negative prompt is encoded as zeros (SDXL) instead of as text.
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
    """The family, decided by shapes: two encoders mean SDXL, text states 1024 wide mean SD 2."""
    if two_encoders and size_conditioned:
        return BaseFamily.SDXL
    if two_encoders or size_conditioned:
        raise BaseModelError(
            "This is a refiner or another special model. Use a complete SD 1.x, SD 2.x or SDXL "
            "base model."
        )
    return BaseFamily.SD2 if cross_attention_dim == 1024 else BaseFamily.SD1


def cross_attention_width(unet: Shapes) -> int:
    """The width of the text states that the UNet's cross-attention reads."""
    for name, shape in unet.items():
        if name.endswith("attn2.to_k.weight") and len(shape) == 2:
            return shape[1]
    raise BaseModelError(
        "The UNet has no cross-attention. Use an SD 1.x, SD 2.x or SDXL base model."
    )
