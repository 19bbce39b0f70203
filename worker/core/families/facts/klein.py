"""FLUX.2 klein with 4 billion parameters (Black Forest Labs), base and distilled."""

from __future__ import annotations

from worker.core.families.facts.family_facts import FamilyFacts, Recipe, UsualDrawing
from worker.core.families.facts.flow import flow_options
from worker.core.families.facts.latents import LinearMap
from worker.core.families.facts.memory import MemoryFacts
from worker.core.families.variants import Variant

# of its autoencoder's 32 channels: InvokeAI, invokeai/app/util/step_callback.py
_CHANNELS = (
    (0.0058, 0.0113, 0.0073),
    (0.0495, 0.0443, 0.0836),
    (-0.0099, 0.0096, 0.0644),
    (0.2144, 0.3009, 0.3652),
    (0.0166, -0.0039, -0.0054),
    (0.0157, 0.0103, -0.0160),
    (-0.0398, 0.0902, -0.0235),
    (-0.0052, 0.0095, 0.0109),
    (-0.3527, -0.2712, -0.1666),
    (-0.0301, -0.0356, -0.0180),
    (-0.0107, 0.0078, 0.0013),
    (0.0746, 0.0090, -0.0941),
    (0.0156, 0.0169, 0.0070),
    (-0.0034, -0.0040, -0.0114),
    (0.0032, 0.0181, 0.0080),
    (-0.0939, -0.0008, 0.0186),
    (0.0018, 0.0043, 0.0104),
    (0.0284, 0.0056, -0.0127),
    (-0.0024, -0.0022, -0.0030),
    (0.1207, -0.0026, 0.0065),
    (0.0128, 0.0101, 0.0142),
    (0.0137, -0.0072, -0.0007),
    (0.0095, 0.0092, -0.0059),
    (0.0000, -0.0077, -0.0049),
    (-0.0465, -0.0204, -0.0312),
    (0.0095, 0.0012, -0.0066),
    (0.0290, -0.0034, 0.0025),
    (0.0220, 0.0169, -0.0048),
    (-0.0332, -0.0457, -0.0468),
    (-0.0085, 0.0389, 0.0609),
    (-0.0076, 0.0003, -0.0043),
    (-0.0111, -0.0460, -0.0614),
)
# four neighbors are one latent, whose color is their mean
_LATENTS = LinearMap(
    tuple((red / 4, green / 4, blue / 4) for red, green, blue in _CHANNELS for _ in range(4)),
    (-0.0329, -0.0718, -0.0851),
)
# InvokeAI tells klein from FLUX.1 by the first layer of the image's feed-forward part.
_ATTENTION = (
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)|ff\.linear_in)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)"
)
_FEED_FORWARD = r"transformer_blocks\.\d+\.(ff|ff_context)\.linear_(in|out)"

# Black Forest Labs trains styles at rank 16 with 2e-4 to 3e-4, others at rank 32 with 1e-4.
_RECIPES = {
    "quick": Recipe(500, 1, 16, 2e-4),
    "balanced": Recipe(1_000, 1, 32, 1e-4, "linear"),
    "thorough": Recipe(1_500, 1, 32, 1e-4, "linear"),
}

KLEIN = FamilyFacts(
    label="FLUX.2 klein 4B",
    short_label="FLUX.2 klein",
    native_side=1024,
    text_width=7680,
    denoiser_parameters=3_875_544_576,
    latent_scale=1.0,
    architecture="flux-2-klein-4b",
    architecture_v="flux-2-klein-4b",
    hub_tag="flux",
    linear_map=_LATENTS,
    memory=MemoryFacts(
        int8_share=3_680_501_760 / 3_875_544_576,  # attention and feed-forward of all blocks
        training={512: 3_180_000_000, 1024: 4_220_000_000},
        drawing=2_500_000_000,
    ),
    least_tokens=512,  # padding is kept
    drawing={
        Variant.BASE: UsualDrawing(steps=28, guidance=4.0),
        Variant.DEDISTILLED: UsualDrawing(steps=28, guidance=4.0),
        Variant.TURBO: UsualDrawing(
            steps=4,
            guidance=1.0,
            untrained="Training on the distilled FLUX.2 klein takes away that it draws in few "
            "steps. Train on FLUX.2 klein base, and use the adapter on this one.",
        ),
    },
    recipes=_RECIPES,
    options=flow_options(
        "FLUX.2 klein", {"attention": _ATTENTION, "linear": f"{_ATTENTION}|{_FEED_FORWARD}"}
    ),
)
