"""Diffusers folders of FLUX.2 klein 4B."""

from __future__ import annotations

from pathlib import Path

from worker.core.families.family import BaseFamily
from worker.core.families.folder import (
    FLOW,
    INDEX,
    SCHEDULER,
    BaseModelError,
    Configs,
    Description,
    ShapesOf,
    chat_folder,
    require_fit,
    side_in,
)
from worker.core.families.klein.layers import BLOCKS, DOUBLE, SINGLE
from worker.core.families.variants import Variant, variant_in_name

LAYERS = {"num_layers": BLOCKS[DOUBLE], "num_single_layers": BLOCKS[SINGLE]}  # at most
TRANSFORMER = "Flux2Transformer2DModel"
LEAST_SIDE = 32  # pixels
STATES = 3  # of the text encoder, side by side


def _describe(configs: Configs, shapes: ShapesOf, path: Path) -> Description:
    transformer, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    if transformer.get("guidance_embeds", True):
        raise BaseModelError(
            "This is FLUX.2 dev, which cannot be trained here. Use FLUX.2 klein base 4B."
        )
    if any(transformer.get(name, 0) > count for name, count in LAYERS.items()):
        raise BaseModelError(
            "This is a larger FLUX.2 than klein 4B, which cannot be trained here. Use FLUX.2 klein "
            "base 4B."
        )
    width, reads = int(text.get("hidden_size") or 0), transformer.get("joint_attention_dim")
    require_fit(
        {
            "text states {} wide": (reads, STATES * width),
            "{} channels": (transformer.get("in_channels"), 4 * int(vae.get("latent_channels", 0))),
        }
    )
    scheduler = configs[SCHEDULER]
    if scheduler.get("_class_name") != FLOW or not scheduler.get("use_dynamic_shifting"):
        raise BaseModelError(
            f"The base model's scheduler is no {FLOW} with a dynamic shift. Use the scheduler of "
            "FLUX.2 klein."
        )
    distilled = Variant.TURBO if configs[INDEX].get("is_distilled") else Variant.BASE
    return Description(
        family=BaseFamily.KLEIN,
        prediction_type="flow",
        resolution=side_in(vae, BaseFamily.KLEIN, least=LEAST_SIDE),
        text_width=STATES * width,
        variant=variant_in_name(path) or distilled,
    )


KLEIN = chat_folder(
    BaseFamily.KLEIN,
    TRANSFORMER,
    {"AutoencoderKLFlux2": "PackedAutoencoder"},
    _describe,
    pipeline="Flux2Klein",
)
