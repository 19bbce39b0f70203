"""The family that A1111 and Forge detect from a file's header; they do not check its tensors.

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


def family_from_header(metadata: Mapping[str, str], *, architecture: bool) -> str:
    """The name of the detected family; empty without metadata: the file is shown for every base.

    `architecture`: the ModelSpec architecture has priority, as in Forge.
    """
    family = (
        _ARCHITECTURES.get(metadata.get("modelspec.architecture", "")) if architecture else None
    )
    if family is None and metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        family = BaseFamily.SDXL
    if family is None and metadata.get("ss_v2") == "True":
        family = BaseFamily.SD2
    if family is None and metadata:
        family = BaseFamily.SD1  # any other metadata
    return family.label if family is not None else ""
