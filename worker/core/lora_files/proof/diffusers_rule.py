"""diffusers, as told by its code; `loading.py` asks the installed one itself.

huggingface/diffusers 0.42.1: `loaders/lora_pipeline.py` (lora_state_dict),
`loaders/lora_conversion_utils.py`, `utils/peft_utils.py` (get_peft_kwargs).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.content import (
    ALPHA,
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    Patch,
    Reading,
)
from worker.core.lora_files.proof.layout import Layout

SETTINGS = "lora_adapter_metadata"
_PREFIXES = ("lora_te_", "lora_unet_", "lora_te1_", "lora_te2_")
_STABILITY = ("input_blocks_", "middle_block_", "output_blocks_")
_DIFFUSERS = ("down_blocks_", "mid_block_", "up_blocks_")
_PEFT_PAIRS = (
    PEFT_PAIR,
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)


def diffusers(content: FileContent, layout: Layout) -> Reading:
    """kohya names when every name has one of its prefixes, else names of its own modules.

    No base is told from the file: the pipeline is there already.
    """
    if all(name.startswith(_PREFIXES) for name in content.tensors):
        return _kohya(content, layout)
    if not all("lora" in name for name in content.tensors):
        return Reading(refused="It calls this an invalid LoRA checkpoint.")
    return _own(content, layout)


def reaches(_key: str, _layout: Layout, _wanted: Collection[str]) -> bool:
    """Every layer: peft changes whatever is named."""
    return True


def _kohya(content: FileContent, layout: Layout) -> Reading:
    stems = content.stems
    stability = {s for s in stems if s.startswith(tuple(f"lora_unet_{p}" for p in _STABILITY))}
    named = any(s.startswith(tuple(f"lora_unet_{p}" for p in _DIFFUSERS)) for s in stems)
    if layout.family is not BaseFamily.SDXL and stability and not named:
        return Reading(refused="It turns the block names of SDXL only for an SDXL pipeline.")
    if layout.family is not BaseFamily.SDXL or named:
        stems = [stem for stem in stems if stem not in stability]  # dropped without a word
    by_stem = _stems(layout)
    reading = Reading()
    for stem in stems:
        down, up = (stem + leaf for leaf in KOHYA_PAIR)
        if stem in by_stem and down in content.tensors and up in content.tensors:
            reading.patches[by_stem[stem]] = Patch(down, up, 1.0)
            reading.used |= {down, up} | ({stem + ALPHA} & content.tensors.keys())
    _lose_attention(reading)
    if reading.refused:
        return reading
    alphas = {
        key: float(content.tensors[_stem(patch) + ALPHA])
        for key, patch in reading.patches.items()
        if _stem(patch) + ALPHA in content.tensors
    }
    if alphas and SETTINGS in content.metadata:
        return Reading(refused="It refuses alphas and adapter settings in one file.")
    for component in {key.partition(".")[0] for key in alphas}:
        mine = {key: a for key, a in alphas.items() if key.startswith(f"{component}.")}
        usual = Counter(mine.values()).most_common(1)[0][0]
        for key, patch in reading.patches.items():
            if key.startswith(f"{component}."):
                own = mine.get(key, usual) if _has_own_alpha(key) else usual
                rank = int(content.tensors[patch.down].shape[0])
                reading.patches[key] = Patch(patch.down, patch.up, own / rank)
    return reading


def _lose_attention(reading: Reading) -> None:
    """Take away an encoder's attention when no `out_proj` is there to tell its naming by.

    Without any MLP either, the whole file is refused.
    """
    for component in ("text_encoder.", "text_encoder_2."):
        mine = {key for key in reading.patches if key.startswith(component)}
        attention = {key for key in mine if ".self_attn." in key}
        if not attention or any(key.endswith("out_proj") for key in attention):
            continue
        reading.inherent = True
        if attention == mine:
            reading.refused = "It refuses an encoder without any out_proj layer."
            return
        for key in attention:
            patch = reading.patches.pop(key)
            reading.used -= {patch.down, patch.up, _stem(patch) + ALPHA}


def _has_own_alpha(key: str) -> bool:
    """Whether a module's own alpha reaches it: the alphas of attention keep an older name.

    Those of the first encoder keep the `text_model.` that transformers 5 took from its modules.
    """
    if key.startswith("unet."):
        return ".attn1." not in key and ".attn2." not in key
    return key.startswith("text_encoder_2.") and ".mlp." in key


def _stems(layout: Layout) -> dict[str, str]:
    stems: dict[str, str] = {}
    for key, path in layout.paths("unet"):
        stems[f"lora_unet_{path.replace('.', '_')}"] = key
        if layout.family is BaseFamily.SDXL and key in layout.ldm:
            stems[f"lora_unet_{layout.ldm[key].replace('.', '_')}"] = key
    prefixes = {"text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}
    for component, accepted in prefixes.items():
        for key, path in layout.paths(component):
            flat = path.replace(".", "_")
            stems |= {prefix + flat: key for prefix in accepted}
            if component == "text_encoder":  # its modules have no `text_model.` any more
                stems |= {prefix + flat.removeprefix("text_model_"): key for prefix in accepted}
    return stems


def _stem(patch: Patch) -> str:
    return patch.down.removesuffix(KOHYA_PAIR[0])


def _own(content: FileContent, layout: Layout) -> Reading:
    if component := _without_attention(content):
        return Reading(
            refused=f"It reads no {component} in which only other layers than attention changed."
        )
    reading = Reading()
    settings = _settings(content.metadata)
    for key in layout.shapes:
        for stem in _own_names(key):
            for down_leaf, up_leaf in _PEFT_PAIRS:
                down, up = stem + down_leaf, stem + up_leaf
                if down in content.tensors and up in content.tensors:
                    rank = int(content.tensors[down].shape[0])
                    reading.patches[key] = Patch(down, up, _scale(key, rank, settings))
                    reading.used |= {down, up}
    return reading


def _without_attention(content: FileContent) -> str:
    """The encoder whose naming it cannot infer: peft's names, and none of attention's layers."""
    for component in ("text_encoder", "text_encoder_2"):
        mine = [name for name in content.tensors if name.startswith(f"{component}.")]
        if mine and not any("lora_linear_layer" in n or "self_attn" in n for n in mine):
            return component
    return ""


def _own_names(key: str) -> Iterable[str]:
    yield key
    if key.startswith("text_encoder."):  # its modules lost the `text_model.`; both are read
        yield key.replace("text_encoder.text_model.", "text_encoder.", 1)


def _scale(key: str, rank: int, settings: Mapping[str, Any]) -> float:
    """alpha / rank by the settings in the header; without any, alpha is the rank."""
    component, _, path = key.partition(".")
    if f"{component}.lora_alpha" not in settings:
        return 1.0
    alpha = settings[f"{component}.lora_alpha"]
    for pattern, own in settings.get(f"{component}.alpha_pattern", {}).items():
        if path == pattern or path.endswith(f".{pattern}"):
            alpha = own
    divisor = rank**0.5 if settings.get(f"{component}.use_rslora") else rank
    return float(alpha) / float(divisor)


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(SETTINGS, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
