"""kohya's own scripts, where files of this naming come from.

kohya-ss/sd-scripts 48d368fa: `networks/lora.py` (create_network_from_weights, the target classes,
convert_diffusers_to_sai_if_needed), `library/sdxl_original_unet.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.comfy_rule import ENCODER_LAYERS
from worker.core.lora_files.proof.content import FileContent, Reading, lookup
from worker.core.lora_files.proof.layout import Layout

# The network is made of what lies inside transformers, residual blocks and samplers.
_CONTAINERS = (".attentions.", ".resnets.", ".downsamplers.", ".upsamplers.")


def kohya(content: FileContent, layout: Layout) -> Reading:
    """SD by diffusers' names and `lora_te_`; SDXL by LDM names, or diffusers' ones turned around.

    What the network has no module for is left out without a word.
    """
    sdxl = layout.family is BaseFamily.SDXL
    names: dict[str, list[str]] = {}
    for key, path in layout.paths("unet"):
        if _has_module(key):
            names[key] = [f"lora_unet_{path.replace('.', '_')}"]
            if sdxl and key in layout.ldm:
                names[key].append(f"lora_unet_{layout.ldm[key].replace('.', '_')}")
    prefixes = {"text_encoder": "lora_te1_" if sdxl else "lora_te_", "text_encoder_2": "lora_te2_"}
    for component, prefix in prefixes.items():
        for key, path in layout.paths(component):
            if _has_module(key):
                names[key] = [prefix + path.replace(".", "_")]
    return lookup(content, names, zero_means_rank=True)


def reaches(key: str, _layout: Layout, _wanted: Collection[str]) -> bool:
    """Transformers, residual blocks and samplers of the UNet; attention and MLP of the encoders."""
    return _has_module(key)


def _has_module(key: str) -> bool:
    if key.startswith("unet."):
        return any(container in key for container in _CONTAINERS)
    return key.endswith(ENCODER_LAYERS)
