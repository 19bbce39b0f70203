"""FLUX.2 klein with 4 billion parameters (Black Forest Labs), base and distilled."""

from __future__ import annotations

from worker.core.families.facts.family_facts import (
    FamilyFacts,
    Recipe,
    UsualDrawing,
)
from worker.core.families.facts.flow import flow_options
from worker.core.families.variants import Variant

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
