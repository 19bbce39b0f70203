"""Rule of stable-diffusion.cpp, which converts every name to that of its own weights.

leejet/stable-diffusion.cpp 97d29908: `src/name_conversion.cpp` (convert_tensor_name,
convert_sep_to_dot), `src/model/adapter/lora.hpp`.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.core.lora_files.proof.comfy_rule import ENCODER_LAYERS
from worker.core.lora_files.proof.content import (
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LoaderReading,
    match_layer_names,
)
from worker.core.lora_files.proof.layout import BaseLayout

_PAIRS = (
    KOHYA_PAIR,
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    PEFT_PAIR,
)
# Underscores become dots, except in listed words; `time_embed` and `linear_1` are not listed.
_UNREACHABLE = ("unet.time_embedding.", "unet.add_embedding.")


def read_as_stable_diffusion_cpp(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match both block namings; `text_encoder.` is split at its underscore and matches nothing.

    The family is taken from the loaded model, not from the file.
    """
    names: dict[str, list[str]] = {}
    for key, path in layout.paths("unet"):
        if not _has_module(key):
            continue
        processed = path.replace(".to_", ".processor.to_")
        names[key] = [
            f"lora_unet_{path.replace('.', '_')}",
            f"unet.{path}",
            f"unet.{processed.removesuffix('.0') if '.to_out.' in processed else processed}",
        ]
        if key in layout.ldm:
            names[key].append(f"lora_unet_{layout.ldm[key].replace('.', '_')}")
    prefixes = {"text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}
    for component, accepted in prefixes.items():
        for key, path in layout.paths(component):
            if _has_module(key):
                names[key] = [prefix + path.replace(".", "_") for prefix in accepted]
    return match_layer_names(content, names, pairs=_PAIRS)


def can_change(key: str, _layout: BaseLayout, _expected: Collection[str]) -> bool:
    """True for the UNet without its time and size embeddings, and attention and MLP of encoders."""
    return _has_module(key)


def _has_module(key: str) -> bool:
    if key.startswith("unet."):
        return not key.startswith(_UNREACHABLE)
    return key.endswith(ENCODER_LAYERS)
