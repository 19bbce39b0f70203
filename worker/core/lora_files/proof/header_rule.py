"""Which family A1111 and Forge take a file for: they ask its header, not its tensors.

AUTOMATIC1111/stable-diffusion-webui 1.10.1 `extensions-builtin/Lora/network.py`;
lllyasviel/stable-diffusion-webui-forge dfdcbab6 `extensions-builtin/sd_forge_lora/network.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from worker.core.bases.family import BaseFamily

_ARCHITECTURES = {
    "stable-diffusion-v1/lora": BaseFamily.SD1,
    "stable-diffusion-xl-v1-base/lora": BaseFamily.SDXL,
}


def seen_by_header(metadata: Mapping[str, str], *, architecture: bool) -> str:
    """The family in words; empty when nothing is said, and then it is shown with every base.

    `architecture`: an architecture id of modelspec is believed first, as Forge does.
    """
    told = _ARCHITECTURES.get(metadata.get("modelspec.architecture", "")) if architecture else None
    if told is None and metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        told = BaseFamily.SDXL
    if told is None and metadata.get("ss_v2") == "True":
        told = BaseFamily.SD2
    if told is None and metadata:
        told = BaseFamily.SD1  # any other header at all
    return told.label if told is not None else ""
