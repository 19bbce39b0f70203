"""Diffusers folders of Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.core.families.family import BaseFamily
from worker.core.families.folder import (
    FLOW,
    SCHEDULER,
    BaseModelError,
    Configs,
    Description,
    ShapesOf,
    chat_folder,
    require_fit,
    side_in,
)
from worker.core.families.variants import Variant, variant_in_name

TRANSFORMER = "ZImageTransformer2DModel"
TURBO_SHIFT = 3.0  # published; the base has 6.0
LEAST_SIDE = 64  # pixels; autoencoders without a stated size have 32


def read_shift(scheduler: Mapping[str, Any]) -> float:
    """The shift of the noise levels at which images are drawn. Raises BaseModelError."""
    if scheduler.get("_class_name") != FLOW or scheduler.get("use_dynamic_shifting"):
        raise BaseModelError(
            f"The base model's scheduler is no {FLOW} with a fixed shift. Use the scheduler of "
            "Z-Image or Z-Image-Turbo."
        )
    shift = scheduler.get("shift")
    if not isinstance(shift, int | float) or not 0 < shift < 100:
        raise BaseModelError(
            "The base model's scheduler/scheduler_config.json has no shift: Z-Image has 6.0, "
            "Z-Image-Turbo 3.0. Download it again."
        )
    return float(shift)


def _describe(configs: Configs, shapes: ShapesOf, path: Path) -> Description:
    transformer, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    shift = read_shift(configs[SCHEDULER])
    if transformer.get("siglip_feat_dim") is not None:
        raise BaseModelError("This is a Z-Image for editing. Use Z-Image or Z-Image-Turbo.")
    require_fit(
        {
            "{} channels": (transformer.get("in_channels"), vae.get("latent_channels")),
            "text states {} wide": (transformer.get("cap_feat_dim"), text.get("hidden_size")),
        }
    )
    by_shift = Variant.TURBO if shift == TURBO_SHIFT else Variant.BASE
    return Description(
        family=BaseFamily.ZIMAGE,
        prediction_type="flow",
        resolution=side_in(vae, BaseFamily.ZIMAGE, least=LEAST_SIDE),
        text_width=text["hidden_size"],
        variant=variant_in_name(path) or by_shift,
    )


ZIMAGE = chat_folder(BaseFamily.ZIMAGE, TRANSFORMER, {"AutoencoderKL": "AutoencoderKL"}, _describe)
