"""Rules of ComfyUI, and of Forge, which uses the same key map.

Comfy-Org/ComfyUI a125cd84 (0.3.64): `comfy/lora.py` (model_lora_keys_unet, model_lora_keys_clip,
load_lora), `comfy/weight_adapter/lora.py`. lllyasviel/stable-diffusion-webui-forge dfdcbab6:
`packages_3rdparty/comfyui_lora_collection/lora.py`, `extensions-builtin/sd_forge_lora/networks.py`
(the limit of 12), `network.py` (the family from the header).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.content import (
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LoaderReading,
    match_layer_names,
    use_other_changes,
)
from worker.core.lora_files.proof.header_rule import family_from_header
from worker.core.lora_files.proof.layout import BaseLayout

MAX_FORGE_LEFT_OVER = 12
MAX_LAYERS = 32
ENCODER_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_UNET_PREFIXES = ("lora_unet_", "diffusion_model.")
_PAIRS = (
    KOHYA_PAIR,
    ("_lora.down.weight", "_lora.up.weight"),
    PEFT_PAIR,
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)


def read_as_comfyui(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match each layer by its LDM and its diffusers name; the family is not read from the file."""
    names = _layer_names(layout)
    for key, path in layout.paths("unet"):
        names[key].append(f"lycoris_{path.replace('.', '_')}")
    own = {"text_encoder": "clip_h" if layout.family is BaseFamily.SD2 else "clip_l"}
    for component, encoder in (own | {"text_encoder_2": "clip_g"}).items():
        for key, path in layout.paths(component):
            names.setdefault(key, []).append(f"text_encoders.{encoder}.transformer.{path}")
    reading = match_layer_names(content, names, pairs=_PAIRS)
    use_other_changes(reading, content, _UNET_PREFIXES)
    return reading


def read_as_forge(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match as ComfyUI does; ignore the file if more than twelve tensors are not recognized."""
    reading = match_layer_names(content, _layer_names(layout), pairs=_PAIRS)
    use_other_changes(reading, content, _UNET_PREFIXES)
    reading.seen_as = family_from_header(content.metadata, architecture=True)
    left = len(content.tensors) - len(reading.used)
    if left > MAX_FORGE_LEFT_OVER:
        return reading.reject(
            f"The file is ignored: {left} of its tensors are not recognized, at most "
            f"{MAX_FORGE_LEFT_OVER} may be."
        )
    return reading


def can_change(key: str, _layout: BaseLayout, _expected: Collection[str]) -> bool:
    """True for the whole UNet, and for attention and MLP of the text encoders."""
    return key.startswith("unet.") or key.endswith(ENCODER_LAYERS)


def _layer_names(layout: BaseLayout) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for key, path in layout.paths("unet"):
        names[key] = list(_unet_names(path, layout.ldm.get(key)))
    prefixes = {"text_encoder": ["te", "te1"], "text_encoder_2": ["te2"]}
    if (
        layout.family is BaseFamily.SDXL
    ):  # `te`, the name of the only encoder of SD, is accepted too
        prefixes["text_encoder"] = ["te1", "te"]
    for component, short in prefixes.items():
        for key, path in layout.paths(component):
            if not path.endswith(ENCODER_LAYERS) or int(path.split(".")[3]) >= MAX_LAYERS:
                continue
            flat = path.replace(".", "_")
            names[key] = [*(f"lora_{prefix}_{flat}" for prefix in short), f"{component}.{path}"]
    return names


def _unet_names(path: str, ldm: str | None) -> Iterator[str]:
    flat = path.replace(".", "_")
    yield f"lora_unet_{flat}"
    if ldm is not None:
        yield f"lora_unet_{ldm.replace('.', '_')}"
        yield f"diffusion_model.{ldm}"
    # names of attention processors, from old versions of diffusers
    processed = path.replace(".to_", ".processor.to_")
    processed = processed.removesuffix(".0") if processed.endswith(".to_out.0") else processed
    yield processed
    yield f"unet.{processed}"
