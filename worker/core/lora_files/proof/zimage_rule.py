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

from collections.abc import Callable, Collection, Iterable, Mapping

from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.peft_settings import read_settings
from worker.core.lora_files.proof.content import (
    ALPHA,
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LayerPatch,
    LeafPair,
    LoaderReading,
)
from worker.core.lora_files.proof.layout import BaseLayout

_DOTTED = ("diffusion_model.", "transformer.")
_KOHYA = "lora_unet_"
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
        for stem in (*(p + path for p in _DOTTED), f"lycoris_{_flat(path)}", path):
            _use(reading, content, key, stem, pairs=(KOHYA_PAIR, PEFT_PAIR))
        for stem in (_KOHYA + _flat(own), f"diffusion_model.{own}"):
            _use(reading, content, key, stem, pairs=(KOHYA_PAIR, PEFT_PAIR), third=third)
    return reading


def read_as_invokeai(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' paths; an alpha beside lora_A and lora_B is dropped."""
    reading = LoaderReading()
    if not any(name.startswith(_INVOKE_PREFIXES) for name in content.tensors):
        return reading.reject("The base model cannot be detected by the names of the layers.")
    for key, path in layout.paths("unet"):
        for prefix in (*_DOTTED, "base_model.model.transformer."):
            _use(reading, content, key, prefix + path, pairs=(KOHYA_PAIR,))
            _use(reading, content, key, prefix + path, pairs=(PEFT_PAIR,), has_alpha=False)
        if not path.endswith(".to_out.0"):
            _use(reading, content, key, f"lora_unet__{_flat(path)}", pairs=(KOHYA_PAIR,))
    return reading


def read_as_stable_diffusion_cpp(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' paths; k and v are joined to q, so that they are lost without it.

    It turns underscores into dots, except in listed words, as feed_forward and the refiners are
    not.
    """
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        for prefix in _DOTTED:
            _use(reading, content, key, prefix + path, pairs=(KOHYA_PAIR, PEFT_PAIR))
        if path.startswith("layers.") and ".attention." in path:
            own, third = _own_name(path)
            _use(reading, content, key, _KOHYA + _flat(path), pairs=(KOHYA_PAIR,))
            _use(reading, content, key, _KOHYA + _flat(own), pairs=(KOHYA_PAIR,), third=third)
    for key in [key for key in reading.patches if key.endswith((".to_k", ".to_v"))]:
        if f"{key.rpartition('.')[0]}.to_q" not in reading.patches:
            patch = reading.patches.pop(key)
            reading.used -= {patch.down, patch.up}
            reading.dropped.add(key)
            reading.remark = "k and v are only used together with q"
    return reading


def read_as_diffusers(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Convert a file of another naming, which has alphas or one of two prefixes, else match.

    The header's settings count beside both; they give every layer a scale of its own.
    """
    names = content.tensors
    is_other = any(
        name.endswith(ALPHA) or name.startswith((_KOHYA, "diffusion_model.")) for name in names
    )
    reading = LoaderReading()
    for key, path in layout.paths("unet"):
        if not is_other:
            _use(reading, content, key, f"transformer.{path}", pairs=(PEFT_PAIR,))
            continue
        for stem in (f"diffusion_model.{path}", path, _KOHYA + _flat(path)):
            _use(reading, content, key, stem, pairs=(KOHYA_PAIR, PEFT_PAIR))
        own, third = _own_name(path)
        _use(reading, content, key, _KOHYA + _flat(own), pairs=(KOHYA_PAIR,), third=third)
        if third is None:  # with dots, q, k and v in one layer are lost
            _use(reading, content, key, f"diffusion_model.{own}", pairs=(KOHYA_PAIR,))
    if is_other and not reading.patches:
        return reading.reject("No layer has the names that the file gets when it is converted.")
    settings = read_settings(content.metadata).of(Component.DENOISER)
    for key, patch in reading.patches.items():
        rank = int(content.tensors[patch.down].shape[0])
        paths = (key.partition(".")[2],)
        if settings is not None and (alpha := settings.alpha(paths, rank)) is not None:
            scale = patch.scale * alpha / rank
            reading.patches[key] = LayerPatch(patch.down, patch.up, scale, patch.third)
    return reading


def can_change(key: str, _layout: BaseLayout, _expected: Collection[str]) -> bool:
    """True for attention and feed-forward of all blocks: what was tried with every program."""
    return ".attention." in key or ".feed_forward." in key


def _own_name(path: str) -> tuple[str, int | None]:
    """(the name in the original model, which third of its rows)."""
    layer, _, name = path.rpartition(".")
    if name in _THIRDS:
        return f"{layer}.qkv", _THIRDS[name]
    return path.replace("attention.to_out.0", "attention.out"), None


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _use(
    reading: LoaderReading,
    content: FileContent,
    key: str,
    stem: str,
    *,
    pairs: Iterable[LeafPair],
    third: int | None = None,
    has_alpha: bool = True,
) -> None:
    """Add the patch of a layer under this name, if the file has it."""
    for down, up in ((stem + down, stem + up) for down, up in pairs):
        if down in content.tensors and up in content.tensors:
            scale = 1.0
            reading.used |= {down, up}
            if has_alpha and stem + ALPHA in content.tensors:
                reading.used.add(stem + ALPHA)
                scale = float(content.tensors[stem + ALPHA]) / content.tensors[down].shape[0]
            reading.patches[key] = LayerPatch(down, up, scale, third)


Read = Callable[[FileContent, BaseLayout], LoaderReading]
RULES: Mapping[BaseFamily, Mapping[str, Read]] = {
    BaseFamily.ZIMAGE: {
        "comfyui": read_as_comfyui,
        "invokeai": read_as_invokeai,
        "cpp": read_as_stable_diffusion_cpp,
        "diffusers": read_as_diffusers,
    }
}
"""The rule of each program that reads adapters for a family that is no UNet's."""
