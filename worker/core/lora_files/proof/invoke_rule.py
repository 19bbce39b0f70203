"""InvokeAI, which finds the base of a file by its shapes before it takes it in.

invoke-ai/InvokeAI 8e71a8a5 (6.14 alpha): `backend/model_manager/configs/lora.py`,
`backend/model_manager/util/model_util.py` (lora_token_vector_length), `backend/patches/`
(layer_patcher.py, lora_conversions/), `app/invocations/compel.py` (the prefixes).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.content import FileContent, Reading, lookup
from worker.core.lora_files.proof.layout import Layout

_BY_WIDTH = {
    768: BaseFamily.SD1,
    1024: BaseFamily.SD2,
    1280: BaseFamily.SDXL,
    2048: BaseFamily.SDXL,
}
_PREFIXES = ("lora_unet_", "lora_te1_", "lora_te2_")
_STABILITY = ("input_blocks_", "middle_block_", "output_blocks_")
_DIFFUSERS = ("down_blocks_", "mid_block_", "up_blocks_")


def invokeai(content: FileContent, layout: Layout) -> Reading:
    """SD by diffusers' names and `lora_te_`; SDXL by one of the two block namings, never both."""
    width, inherent = _token_width(content)
    seen_as = _BY_WIDTH[width].label if width in _BY_WIDTH else ""
    reading = Reading(seen_as=seen_as, inherent=inherent)
    if width not in _BY_WIDTH:
        shown = "no layer tells the text width" if width is None else f"text width {width}"
        return reading.refuse(f"It knows no base for this file: {shown}.")
    sdxl = layout.family is BaseFamily.SDXL
    if sdxl:
        strange = [stem for stem in content.stems if not stem.startswith(_PREFIXES)]
        if strange:
            return reading.refuse(f"It refuses SDXL files with a name such as {strange[0][:60]!r}.")
        unet = [s.removeprefix("lora_unet_") for s in content.stems if s.startswith("lora_unet_")]
        if any(s.startswith(_STABILITY) for s in unet) and any(
            s.startswith(_DIFFUSERS) for s in unet
        ):
            return reading.refuse("It refuses SDXL files that mix both namings of blocks.")
    names: dict[str, list[str]] = {}
    for key, path in layout.paths("unet"):
        names[key] = [f"lora_unet_{path.replace('.', '_')}"]
        if sdxl and key in layout.ldm:
            names[key].append(f"lora_unet_{layout.ldm[key].replace('.', '_')}")
    prefixes = {"text_encoder": "lora_te1_" if sdxl else "lora_te_", "text_encoder_2": "lora_te2_"}
    for component, prefix in prefixes.items():
        for key, path in layout.paths(component):
            names[key] = [prefix + path.replace(".", "_")]
    found = lookup(content, names)
    return replace(found, seen_as=seen_as, inherent=inherent)


def reaches(_key: str, _layout: Layout, _wanted: Collection[str]) -> bool:
    """Every layer: the names are resolved in the modules themselves."""
    return True


def _token_width(content: FileContent) -> tuple[int | None, bool]:
    """The width of the text states by the first layer that tells it, in the order of the file.

    And whether no such layer was trained, so that no name could help.
    """
    encoders: dict[str, int] = {}
    kohya_named = all(stem.startswith("lora_") for stem in content.stems)
    for name, tensor in content.tensors.items():
        stem, _, leaf = name.partition(".")
        if leaf != "lora_down.weight":
            continue
        width = int(tensor.shape[1])
        if stem.startswith("lora_unet_") and stem.endswith(("_attn2_to_k", "_attn2_to_v")):
            return width, False
        if stem.startswith("lora_unet_") and stem.endswith("time_emb_proj"):
            return width, True  # 1280 in every family, and that is taken for SDXL
        if "_self_attn_" not in stem:
            continue
        if stem.startswith("lora_te_"):
            return width, False
        if stem.startswith(("lora_te1_", "lora_te2_")):
            encoders[stem[:8]] = width
        if len(encoders) == 2:
            return sum(encoders.values()), False
    return None, kohya_named
