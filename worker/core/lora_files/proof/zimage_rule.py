"""Rules of the programs that read adapters for Z-Image; they name its layers as we do not.

- Comfy-Org/ComfyUI: `comfy/lora.py` 17358c8f (model_lora_keys_unet, Lumina2), `comfy/utils.py`
  09708eae (z_image_to_diffusers), `comfy/weight_adapter/lora.py` 6f98b150.
- invoke-ai/InvokeAI 8e71a8a5: `backend/model_manager/configs/lora.py`, `backend/patches/` (the
  alpha of a file is dropped beside lora_A and lora_B).
- leejet/stable-diffusion.cpp 97d29908: `src/name_conversion.cpp`, `src/model/adapter/lora.hpp`.
- huggingface/diffusers 0.42.1: `loaders/lora_pipeline.py` (ZImageLoraLoaderMixin),
  `loaders/lora_conversion_utils.py` (_convert_non_diffusers_z_image_lora_to_diffusers).
"""

from __future__ import annotations

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.block_layers import (
    BOTH_PAIRS,
    DOTTED,
    KOHYA,
    NOT_DETECTED,
    FamilyRules,
    drop_without_query,
    flat,
    scale_by_settings,
)
from worker.core.lora_files.proof.content import (
    ALPHA,
    PEFT_PAIR,
    FileContent,
    LoaderReading,
    use_layer,
)
from worker.core.lora_files.proof.layout import BaseLayout

_INVOKE_PREFIXES = (
    *(f"diffusion_model.{root}." for root in ("layers", "context_refiner", "noise_refiner")),
    *("transformer.layers.", "base_model.model.transformer.layers.", "lora_unet__layers_"),
)
_THIRDS = {"to_q": 0, "to_k": 1, "to_v": 2}


def read_as_comfyui(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' paths with dots, and its own names, where q, k and v are one layer."""
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        own, third = _own_name(path)
        for stem in (*(p + path for p in DOTTED), f"lycoris_{flat(path)}", path):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS)
        for stem in (KOHYA + flat(own), f"diffusion_model.{own}"):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS, third=third)
    return reading


def read_as_invokeai(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' paths; an alpha beside lora_A and lora_B is dropped."""
    reading = LoaderReading()
    if not any(name.startswith(_INVOKE_PREFIXES) for name in content.tensors):
        return reading.reject(NOT_DETECTED)
    for key, path in layout.paths("unet"):
        for prefix in (*DOTTED, "base_model.model.transformer."):
            use_layer(reading, content, key, prefix + path)
            use_layer(reading, content, key, prefix + path, pairs=(PEFT_PAIR,), has_alpha=False)
        if not path.endswith(".to_out.0"):
            use_layer(reading, content, key, f"lora_unet__{flat(path)}")
    return reading


def read_as_stable_diffusion_cpp(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' paths; k and v are joined to q, so that they are lost without it.

    It turns underscores into dots, except in listed words, as feed_forward and the refiners are
    not.
    """
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        for prefix in DOTTED:
            use_layer(reading, content, key, prefix + path, pairs=BOTH_PAIRS)
        if path.startswith("layers.") and ".attention." in path:
            own, third = _own_name(path)
            use_layer(reading, content, key, KOHYA + flat(path))
            use_layer(reading, content, key, KOHYA + flat(own), third=third)
    drop_without_query(reading, "to_q", ("to_k", "to_v"))
    return reading


def read_as_diffusers(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Convert a file of another naming, which has alphas or one of two prefixes, else match.

    The header's settings count beside both; they give every layer a scale of its own.
    """
    names = content.tensors
    is_other = any(
        name.endswith(ALPHA) or name.startswith((KOHYA, "diffusion_model.")) for name in names
    )
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        if not is_other:
            use_layer(reading, content, key, f"transformer.{path}", pairs=(PEFT_PAIR,))
            continue
        for stem in (f"diffusion_model.{path}", path, KOHYA + flat(path)):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS)
        own, third = _own_name(path)
        use_layer(reading, content, key, KOHYA + flat(own), third=third)
        if third is None:  # with dots, q, k and v in one layer are lost
            use_layer(reading, content, key, f"diffusion_model.{own}")
    if is_other and not reading.patches:
        return reading.reject("No layer has the names that the file gets when it is converted.")
    return scale_by_settings(reading, content)


def _own_name(path: str) -> tuple[str, int | None]:
    """(the name in the original model, which third of its rows)."""
    layer, _, name = path.rpartition(".")
    if name in _THIRDS:
        return f"{layer}.qkv", _THIRDS[name]
    return path.replace("attention.to_out.0", "attention.out"), None


RULES = FamilyRules(
    BaseFamily.ZIMAGE,
    {
        "comfyui": read_as_comfyui,
        "invokeai": read_as_invokeai,
        "cpp": read_as_stable_diffusion_cpp,
        "diffusers": read_as_diffusers,
    },
    tried=(".attention.", ".feed_forward."),
)
"""The rule of each program that reads adapters for Z-Image."""
