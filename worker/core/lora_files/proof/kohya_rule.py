"""Rule of kohya sd-scripts, the origin of this naming.

kohya-ss/sd-scripts 48d368fa: `networks/lora.py` (create_network_from_weights, the target classes,
convert_diffusers_to_sai_if_needed), `library/sdxl_original_unet.py`.
"""

from __future__ import annotations

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.content import FileContent, LoaderReading, match_layer_names
from worker.core.lora_files.proof.layout import ENCODER_LAYERS, BaseLayout

# its network covers only layers inside transformers, residual blocks and samplers
_CONTAINERS = (".attentions.", ".resnets.", ".downsamplers.", ".upsamplers.")


def read_as_kohya(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match SD by diffusers' names and `lora_te_`; SDXL by LDM names or converted diffusers names.

    Tensors without a module in the network are ignored without an error.
    """
    names = layout.kohya_names(
        layout.encoder_prefixes, ldm=layout.family is BaseFamily.SDXL, has=kohya_can_change
    )
    return match_layer_names(content, names, zero_means_rank=True)


def kohya_can_change(key: str, *_: object) -> bool:
    """True for transformers, residual blocks and samplers of the UNet, attention and MLP of TEs."""
    if key.startswith("unet."):
        return any(container in key for container in _CONTAINERS)
    return key.endswith(ENCODER_LAYERS)
