"""Rules of the programs that read adapters for FLUX.2 klein; they name its layers as we do not.

- Comfy-Org/ComfyUI: `comfy/lora.py` 17358c8f (model_lora_keys_unet, Flux), `comfy/utils.py`
  09708eae (flux_to_diffusers), `comfy/weight_adapter/lora.py` 6f98b150.
- invoke-ai/InvokeAI 8e71a8a5: `backend/model_manager/configs/lora.py` (_is_flux2_lora),
  `backend/model_manager/load/model_loaders/lora.py`, `backend/patches/lora_conversions/`.
- leejet/stable-diffusion.cpp 97d29908: `src/name_conversion.cpp`, `src/model/adapter/lora.hpp`.
- huggingface/diffusers 0.42.1: `loaders/lora_pipeline.py` (Flux2LoraLoaderMixin),
  `loaders/lora_conversion_utils.py` (_convert_non_diffusers_flux2_lora_to_diffusers,
  _convert_kohya_flux2_lora_to_diffusers).
"""

from __future__ import annotations

from worker.core.families.family import BaseFamily
from worker.core.families.klein.layers import WIDTH
from worker.core.families.klein.names import original_layer
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
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LoaderReading,
    use_layer,
)
from worker.core.lora_files.proof.layout import BaseLayout

COMFY = "diffusion_model."
PEFT = "base_model.model."
FLUX_1 = "FLUX.1"
_OWN_TO_CPP = (".ff.", ".ff_context.", ".to_qkv_mlp_proj", "single_transformer_blocks.")


def read_as_comfyui(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match the original names behind two prefixes, and diffusers' paths behind others."""
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        own, third = original_layer(path)
        flats = (f"lycoris_{flat(path)}", f"lora_transformer_{flat(path)}")
        for stem in (f"transformer.{path}", path, *flats):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS)
        for stem in (KOHYA + flat(own), COMFY + own):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS, third=third)
    return reading


def read_as_invokeai(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match the original names, or diffusers' paths without alphas.

    FLUX.1 has the same width: only its feed-forward layers, or names that it lacks, tell them
    apart.
    """
    names = content.tensors
    reading = LoaderReading()
    prefix, pairs = KOHYA, (KOHYA_PAIR,)
    if any(name.startswith((f"{COMFY}double_blocks.", f"{COMFY}single_blocks.")) for name in names):
        prefix, pairs = COMFY, (PEFT_PAIR,)
    if not all(name.startswith(prefix) for name in names):
        return _read_paths_as_invokeai(content, layout)
    if prefix == COMFY and any(name.endswith(ALPHA) for name in names):
        return reading.reject("A file of these names with alphas is not loaded.")
    is_own = False
    for key, path in layout.paths("unet"):
        own, third = original_layer(path)
        own = flat(own) if prefix == KOHYA else own
        use_layer(reading, content, key, prefix + own, pairs=pairs, third=third)
        if (patch := reading.patches.get(key)) is not None:
            is_own |= path.endswith("ff.linear_in") and names[patch.up].shape[0] != 4 * WIDTH
    if not reading.patches:
        return reading.reject(NOT_DETECTED)
    has_projection = any(key.endswith("attn.to_out.0") for key in reading.patches)
    reading.seen_as = layout.family.label if is_own and has_projection else FLUX_1
    reading.inherent = reading.seen_as == FLUX_1
    return reading


def _read_paths_as_invokeai(content: FileContent, layout: BaseLayout) -> LoaderReading:
    reading = LoaderReading()
    firsts = (
        "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
        "transformer_blocks.0.ff.linear_in",
    )
    for prefix in ("transformer.", PEFT, ""):
        if any(f"{prefix}{first}.lora_A.weight" in content.tensors for first in firsts):
            for key, path in layout.paths("unet"):
                use_layer(reading, content, key, prefix + path, pairs=(PEFT_PAIR,))
    if not reading.patches or any(name.endswith(ALPHA) for name in content.tensors):
        return reading.reject(NOT_DETECTED)
    reading.seen_as = layout.family.label
    return reading


def read_as_stable_diffusion_cpp(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match the original names, and of diffusers' paths those that FLUX.1 has as well."""
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        own, third = original_layer(path)
        if not any(part in path for part in _OWN_TO_CPP):
            for stem in (*(prefix + path for prefix in DOTTED), path, KOHYA + flat(path)):
                use_layer(reading, content, key, stem, pairs=BOTH_PAIRS)
    drop_without_query(reading, "to_q", ("to_k", "to_v"))
    drop_without_query(reading, "add_q_proj", ("add_k_proj", "add_v_proj"))
    for key, path in layout.paths("unet"):
        own, third = original_layer(path)
        for stem in (*(prefix + own for prefix in DOTTED), KOHYA + flat(own)):
            use_layer(reading, content, key, stem, pairs=BOTH_PAIRS, third=third)
    return reading


def read_as_diffusers(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Convert kohya's names and those behind `diffusion_model.`, else match its own.

    With alphas only kohya's names are read; the header's settings count beside all.
    """
    names = content.tensors
    reading = LoaderReading()
    is_kohya = any(name.endswith(KOHYA_PAIR) for name in names)
    is_converted = any(name.startswith((COMFY, PEFT)) for name in names)
    if not is_kohya and any(name.endswith(ALPHA) for name in names):
        return reading.reject("A file with a tensor like “.alpha” is rejected.")
    for key, path in layout.paths("unet"):
        own, third = original_layer(path)
        if is_kohya and "modulation" not in path:
            use_layer(reading, content, key, KOHYA + flat(own), third=third)
        elif is_converted and not is_kohya:
            for prefix in (COMFY, PEFT):
                use_layer(reading, content, key, prefix + path, pairs=(PEFT_PAIR,))
                use_layer(reading, content, key, prefix + own, pairs=(PEFT_PAIR,), third=third)
        elif not is_kohya:
            use_layer(reading, content, key, f"transformer.{path}", pairs=(PEFT_PAIR,))
    return scale_by_settings(reading, content)


RULES = FamilyRules(
    BaseFamily.KLEIN,
    {
        "comfyui": read_as_comfyui,
        "invokeai": read_as_invokeai,
        "cpp": read_as_stable_diffusion_cpp,
        "diffusers": read_as_diffusers,
    },
    tried=("transformer_blocks.",),
)
"""The rule of each program that reads adapters for FLUX.2 klein."""
