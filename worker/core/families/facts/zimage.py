"""Z-Image and Z-Image-Turbo (Tongyi-MAI, arXiv 2511.22699)."""

from __future__ import annotations

from worker.core.families.facts.family_facts import FamilyFacts, Recipe, UsualDrawing
from worker.core.families.facts.flow import flow_options
from worker.core.families.facts.latents import LinearMap
from worker.core.families.facts.memory import MemoryFacts
from worker.core.families.variants import Variant

# of FLUX.1's autoencoder, which Z-Image shares: InvokeAI, invokeai/app/util/step_callback.py
_LATENTS = LinearMap(
    (
        (-0.0412, 0.0149, 0.0521),
        (0.0056, 0.0291, 0.0768),
        (0.0342, -0.0681, -0.0427),
        (-0.0258, 0.0092, 0.0463),
        (0.0863, 0.0784, 0.0547),
        (-0.0017, 0.0402, 0.0158),
        (0.0501, 0.1058, 0.1152),
        (-0.0209, -0.0218, -0.0329),
        (-0.0314, 0.0083, 0.0896),
        (0.0851, 0.0665, -0.0472),
        (-0.0534, 0.0238, -0.0024),
        (0.0452, -0.0026, 0.0048),
        (0.0892, 0.0831, 0.0881),
        (-0.1117, -0.0304, -0.0789),
        (0.0027, -0.0479, -0.0043),
        (-0.1146, -0.0827, -0.0598),
    )
)
# Most people train at 1e-4 with alpha equal to rank, and 2e-4 ruins the images. Where they have a
# lower alpha, they raise the rate as much.
_RECIPES = {
    "quick": Recipe(1_000, 1, 16, 1e-4),
    "balanced": Recipe(2_000, 1, 32, 1e-4, "linear"),
    "thorough": Recipe(3_000, 1, 32, 1e-4, "linear"),
}
_ATTENTION = r"layers\.\d+\.attention\.(to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"layers\.\d+\.feed_forward\.w[123]"

ZIMAGE = FamilyFacts(
    label="Z-Image",
    short_label="Z-Image",
    native_side=1024,
    text_width=2560,
    denoiser_parameters=6_154_908_736,
    latent_scale=0.3611,
    architecture="Z-Image",
    architecture_v="Z-Image",
    hub_tag="z-image",
    linear_map=_LATENTS,
    memory=MemoryFacts(
        int8_share=5_308_416_000 / 6_154_908_736,  # attention and feed-forward of `layers`
        training={512: 3_230_000_000, 1024: 4_830_000_000},
        drawing=2_500_000_000,
    ),
    least_tokens=8,
    drawing={
        Variant.BASE: UsualDrawing(steps=28, guidance=4.0),
        Variant.DEDISTILLED: UsualDrawing(steps=28, guidance=4.0),
        Variant.TURBO: UsualDrawing(
            steps=9,
            guidance=1.0,
            weight=2.0,
            weights="Adapters of Z-Image usually need a weight of 1.5 to 2.5 on Turbo.",
            untrained="Training on Z-Image-Turbo takes away that it draws in few steps. Train on "
            "Z-Image, and use the adapter on Turbo.",
        ),
    },
    recipes=_RECIPES,
    options=flow_options(
        "Z-Image", {"attention": _ATTENTION, "linear": f"{_ATTENTION}|{_FEED_FORWARD}"}
    ),
)
