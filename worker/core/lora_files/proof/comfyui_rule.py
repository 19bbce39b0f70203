"""Rule of ComfyUI, which Forge uses as well.

Comfy-Org/ComfyUI a125cd84 (0.3.64): `comfy/lora.py` (model_lora_keys_unet, model_lora_keys_clip,
load_lora), `comfy/weight_adapter/lora.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.content import (
    FileContent,
    LoaderReading,
    match_layer_names,
    use_other_changes,
)
from worker.core.lora_files.proof.layout import ANY_ENCODER, ENCODER_LAYERS, PAIRS, BaseLayout

MAX_LAYERS = 32  # of an encoder
COMFY_PAIRS = (*PAIRS, (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"))
COMFY_PREFIXES = ("lora_unet_", "diffusion_model.")


def read_as_comfyui(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match each layer by its LDM and its diffusers name; the family is not read from the file."""
    names = comfy_names(layout)
    for key, path in layout.paths("unet"):
        names[key].append(f"lycoris_{path.replace('.', '_')}")
    own = {"text_encoder": "clip_h" if layout.family is BaseFamily.SD2 else "clip_l"}
    for component, encoder in (own | {"text_encoder_2": "clip_g"}).items():
        for key, path in layout.paths(component):
            names.setdefault(key, []).append(f"text_encoders.{encoder}.transformer.{path}")
    reading = match_layer_names(content, names, pairs=COMFY_PAIRS)
    use_other_changes(reading, content, COMFY_PREFIXES)
    return reading


def comfy_names(layout: BaseLayout) -> dict[str, list[str]]:
    names = layout.kohya_names(ANY_ENCODER, has=_is_in_comfy_map)
    for key in names:
        component, _, path = key.partition(".")
        if component != "unet":
            names[key].append(key)
            continue
        if key in layout.ldm:
            names[key].append(f"diffusion_model.{layout.ldm[key]}")
        # names of attention processors, from old versions of diffusers
        processed = path.replace(".to_", ".processor.to_")
        processed = processed.removesuffix(".0") if processed.endswith(".to_out.0") else processed
        names[key] += [processed, f"unet.{processed}"]
    return names


def _is_in_comfy_map(key: str) -> bool:
    if key.startswith("unet."):
        return True
    return key.endswith(ENCODER_LAYERS) and int(key.split(".")[4]) < MAX_LAYERS


def comfy_can_change(key: str, _layout: BaseLayout, _expected: Collection[str]) -> bool:
    """True for the whole UNet, and for attention and MLP of the text encoders."""
    return key.startswith("unet.") or key.endswith(ENCODER_LAYERS)
