"""Rule of kohya's scripts, the origin of this naming.

kohya-ss/sd-scripts 48d368fa: `networks/lora.py` (create_network_from_weights, the target classes,
convert_diffusers_to_sai_if_needed), `library/sdxl_original_unet.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.comfy_rule import ENCODER_LAYERS
from worker.core.lora_files.proof.content import FileContent, LoaderReading, match_layer_names
from worker.core.lora_files.proof.layout import BaseLayout

# The network covers only layers inside transformers, residual blocks and samplers.
_CONTAINERS = (".attentions.", ".resnets.", ".downsamplers.", ".upsamplers.")


def read_as_kohya(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match SD by diffusers' names and `lora_te_`; SDXL by LDM names or converted diffusers names.

    Tensors without a module in the network are ignored without an error.
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
    return match_layer_names(content, names, zero_means_rank=True)


def can_change(key: str, _layout: BaseLayout, _expected: Collection[str]) -> bool:
    """True for transformers, residual blocks and samplers of the UNet, attention and MLP of TEs."""
    return _has_module(key)


def _has_module(key: str) -> bool:
    if key.startswith("unet."):
        return any(container in key for container in _CONTAINERS)
    return key.endswith(ENCODER_LAYERS)
