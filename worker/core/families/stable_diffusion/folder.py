"""Diffusers folders of SD 1.x, SD 2.x and SDXL; their shapes tell the families apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.core.families.family import BaseFamily
from worker.core.families.folder import (
    INDEX,
    SCHEDULER,
    BaseModelError,
    Configs,
    Description,
    FolderKind,
    PredictionType,
    ShapesOf,
    vae_factor,
)

PREDICTIONS: Mapping[object, PredictionType] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
}


@dataclass(frozen=True)
class SingleFile:
    """What a single file of a family does not say.

    `text_layers`: those of a text encoder from which diffusers has dropped the last layer, which
    nobody reads; None for a family whose encoders keep theirs.
    """

    prediction_type: PredictionType = "epsilon"
    upcast_attention: bool = False
    text_layers: int | None = None


SINGLE_FILES = {
    BaseFamily.SD1: SingleFile(),
    BaseFamily.SD2: SingleFile("v_prediction", upcast_attention=True, text_layers=23),
    BaseFamily.SDXL: SingleFile(),
}


def family_of(
    *, cross_attention_dim: int, two_encoders: bool, size_conditioned: bool
) -> BaseFamily:
    """The family, decided by shapes: two encoders mean SDXL, text states 1024 wide mean SD 2.

    Raises BaseModelError.
    """
    if two_encoders and size_conditioned:
        return BaseFamily.SDXL
    if two_encoders or size_conditioned:
        raise BaseModelError(
            "This is a refiner or another special model. Use a complete SD 1.x, SD 2.x or SDXL "
            "base model."
        )
    is_wide = cross_attention_dim == BaseFamily.SD2.facts.text_width
    return BaseFamily.SD2 if is_wide else BaseFamily.SD1


def cross_attention_width(unet: Mapping[str, tuple[int, ...]]) -> int:
    """The width of the text states that the UNet's cross-attention reads. Raises BaseModelError."""
    for name, shape in unet.items():
        if name.endswith("attn2.to_k.weight") and len(shape) == 2:
            return shape[1]
    raise BaseModelError(
        "The UNet has no cross-attention. Use an SD 1.x, SD 2.x or SDXL base model."
    )


def check_latents(unet_channels: int | None, vae_channels: int | None) -> None:
    """Raise BaseModelError unless UNet and autoencoder have latents of the same channels."""
    if unet_channels is None or vae_channels is None or unet_channels != vae_channels:
        raise BaseModelError(
            f"The UNet has {unet_channels} input channels, the autoencoder {vae_channels}: this is "
            "an inpainting or another special model. Use a text-to-image base model."
        )


def empty_is_zero(family: BaseFamily) -> bool:
    """True if an empty negative prompt is zeros unless the folder says otherwise."""
    return family is BaseFamily.SDXL


def _describe(configs: Configs, shapes: ShapesOf, _path: Path) -> Description:
    unet, vae = configs["unet"], configs["vae"]
    width = cross_attention_width(shapes["unet"])
    check_latents(unet.get("in_channels"), vae.get("latent_channels"))
    family = family_of(
        cross_attention_dim=width,
        two_encoders="text_encoder_2" in shapes,
        size_conditioned=any(name.startswith("add_embedding.") for name in shapes["unet"]),
    )
    predicted = configs[SCHEDULER].get("prediction_type", "epsilon")
    if not isinstance(predicted, str) or predicted not in PREDICTIONS:
        raise BaseModelError(
            f"The model predicts {predicted!r}. Use one with epsilon or v_prediction."
        )
    side = unet.get("sample_size")  # in latents
    if isinstance(side, list) and side:
        side = max(side)
    return Description(
        family=family,
        prediction_type=PREDICTIONS[predicted],
        resolution=(side if isinstance(side, int) else family.facts.native_side // 8)
        * vae_factor(vae),
        text_width=width,
        zero_empty_negative=empty_is_zero(family)
        and bool(configs[INDEX].get("force_zeros_for_empty_prompt", True)),
    )


UNETS = FolderKind(
    folders={
        "unet": "unet",
        "vae": "vae",
        "text_encoder": "text_encoder",
        "text_encoder_2": "text_encoder_2",
    },
    optional=frozenset({"text_encoder_2"}),
    describe=_describe,
)
