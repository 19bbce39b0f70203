"""Rule of InvokeAI, which detects the family of a file by its shapes.

invoke-ai/InvokeAI 8e71a8a5 (6.14 alpha): `backend/model_manager/configs/lora.py`,
`backend/model_manager/util/model_util.py` (lora_token_vector_length), `backend/patches/`
(layer_patcher.py, lora_conversions/), `app/invocations/compel.py` (the prefixes).
"""

from __future__ import annotations

from dataclasses import replace

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.content import (
    FileContent,
    LoaderReading,
    match_layer_names,
    use_other_changes,
)
from worker.core.lora_files.proof.layout import DIFFUSERS_BLOCKS, STABILITY_BLOCKS, BaseLayout

_PREFIXES = ("lora_unet_", "lora_te1_", "lora_te2_")
_WIDTHS = {
    768: BaseFamily.SD1,
    1024: BaseFamily.SD2,
    1280: BaseFamily.SDXL,
    2048: BaseFamily.SDXL,
}


def read_as_invokeai(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match SD by diffusers' names and `lora_te_`; SDXL by one of two block namings, never both.

    The family of a file is detected from its shapes when it is imported.
    """
    width, inherent = _token_width(content)
    seen_as = _WIDTHS[width].label if width in _WIDTHS else ""
    reading = LoaderReading(seen_as=seen_as, inherent=inherent)
    if width not in _WIDTHS:
        if width is None:
            return reading.reject("The base model cannot be detected: no layer has its text width.")
        return reading.reject(f"No base model of this size is supported (text width {width}).")
    is_sdxl = layout.family is BaseFamily.SDXL
    if is_sdxl:
        unknown = [stem for stem in content.stems if not stem.startswith(_PREFIXES)]
        if unknown:
            return reading.reject(f"SDXL files with a name like {unknown[0][:60]!r} are rejected.")
        if all(
            any(s.startswith(b) for s in content.stems)
            for b in (STABILITY_BLOCKS, DIFFUSERS_BLOCKS)
        ):
            return reading.reject("SDXL files that mix both block namings are rejected.")
    found = match_layer_names(content, layout.kohya_names(layout.encoder_prefixes, ldm=is_sdxl))
    use_other_changes(found, content, ("lora_unet_",))
    return replace(found, seen_as=seen_as, inherent=inherent)


def _token_width(content: FileContent) -> tuple[int | None, bool]:
    """(text width, inherent) from the first layer that has the width, in the order of the file.

    `inherent`: no layer with the right width was trained, so that no other naming could help.
    """
    encoders: dict[str, int] = {}
    has_kohya_names = all(stem.startswith("lora_") for stem in content.stems)
    for name, tensor in content.tensors.items():
        stem, _, leaf = name.partition(".")
        if leaf != "lora_down.weight":
            continue
        width = int(tensor.shape[1])
        if stem.startswith("lora_unet_") and stem.endswith(("_attn2_to_k", "_attn2_to_v")):
            return width, False
        if stem.startswith("lora_unet_") and stem.endswith("time_emb_proj"):
            return width, True  # 1280 in every family, which is detected as SDXL
        if "_self_attn_" not in stem:
            continue
        if stem.startswith("lora_te_"):
            return width, False
        if stem.startswith(("lora_te1_", "lora_te2_")):
            encoders[stem[:8]] = width
        if len(encoders) == 2:
            return sum(encoders.values()), False
    return None, has_kohya_names
