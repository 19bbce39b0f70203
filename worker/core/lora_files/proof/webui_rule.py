"""Rules of A1111 and Forge, which detect the family by the header alone.

AUTOMATIC1111/stable-diffusion-webui 1.10.1 (read as lshqqytiger/stable-diffusion-webui-amdgpu
e61adddd): `extensions-builtin/Lora/networks.py` (convert_diffusers_name_to_compvis, load_network,
network_apply_weights), `network.py` (calc_scale, the family from the header).

lllyasviel/stable-diffusion-webui-forge dfdcbab6, which uses ComfyUI's key map:
`packages_3rdparty/comfyui_lora_collection/lora.py`; `extensions-builtin/sd_forge_lora/`:
`networks.py` (the limit of 12), `network.py` (the family from the header).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.comfyui_rule import COMFY_PAIRS, COMFY_PREFIXES, comfy_names
from worker.core.lora_files.proof.content import (
    FileContent,
    LoaderReading,
    match_layer_names,
    use_other_changes,
)
from worker.core.lora_files.proof.layout import ANY_ENCODER, ENCODER_LAYERS, FUSED_PARTS, BaseLayout

MAX_FORGE_LEFT_OVER = 12
_ARCHITECTURES = {
    "stable-diffusion-v1/lora": BaseFamily.SD1,
    "stable-diffusion-xl-v1-base/lora": BaseFamily.SDXL,
}
_FUSED = {BaseFamily.SD2: "text_encoder.", BaseFamily.SDXL: "text_encoder_2."}


def read_as_forge(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match as ComfyUI does; ignore the file if more than twelve tensors are not recognized."""
    reading = match_layer_names(content, comfy_names(layout), pairs=COMFY_PAIRS)
    use_other_changes(reading, content, COMFY_PREFIXES)
    reading.seen_as = family_from_header(content.metadata, architecture=True)
    left = len(content.tensors) - len(reading.used)
    if left > MAX_FORGE_LEFT_OVER:
        return reading.reject(
            f"The file is ignored: {left} of its tensors are not recognized, at most "
            f"{MAX_FORGE_LEFT_OVER} may be."
        )
    return reading


def read_as_a1111(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' names by a formula made for SD 1.x, and LDM names unchanged.

    OpenCLIP's attention is one fused module: it is only patched if all four projections of a layer
    are in the file.
    """
    encoders = ANY_ENCODER if layout.family is BaseFamily.SD1 else layout.encoder_prefixes
    names = layout.kohya_names(encoders, has=lambda key: _is_in_webui(key, layout))
    if 0 in layout.attended_up_blocks and "unet.up_blocks.0.upsamplers.0.conv" in names:
        # the formula places the first upsampler as in SD 1.x, before any attention
        names["unet.up_blocks.0.upsamplers.0.conv"].remove(
            "lora_unet_up_blocks_0_upsamplers_0_conv"
        )
    reading = match_layer_names(content, names)
    use_other_changes(reading, content, ("lora_unet_",))
    reading.seen_as = family_from_header(content.metadata, architecture=False)
    if layout.family in _FUSED:
        _drop_incomplete_attention(reading, content, _FUSED[layout.family])
    return reading


def _is_in_webui(key: str, layout: BaseLayout) -> bool:
    """True for UNet layers of Stability's layout, and attention and MLP of the encoders."""
    return key in layout.ldm if key.startswith("unet.") else key.endswith(ENCODER_LAYERS)


def webui_can_change(key: str, layout: BaseLayout, expected: Collection[str]) -> bool:
    """True for what it has; a fused attention is only changed if all projections are trained."""
    layer, _, leaf = key.rpartition(".")
    if key.startswith(_FUSED.get(layout.family, "-")) and leaf in FUSED_PARTS:
        return all(f"{layer}.{part}" in expected for part in FUSED_PARTS)
    return _is_in_webui(key, layout)


def _drop_incomplete_attention(reading: LoaderReading, content: FileContent, prefix: str) -> None:
    """Remove the patches of fused attention layers unless all projections are in the file."""
    parts = {
        key.rpartition(".")[0]
        for key in reading.patches
        if key.startswith(prefix) and key.endswith(FUSED_PARTS)
    }
    for layer in parts:
        keys = [f"{layer}.{part}" for part in FUSED_PARTS]
        if all(key in reading.patches for key in keys):
            continue
        for key in keys:
            if (patch := reading.patches.pop(key, None)) is not None:
                reading.dropped.add(key)
                reading.remark = "q, k, v and out of an encoder are only used together"
                stem = patch.down.partition(".")[0]
                reading.used -= {name for name in content.tensors if name.startswith(f"{stem}.")}


def family_from_header(metadata: Mapping[str, str], *, architecture: bool) -> str:
    """The family that A1111 and Forge detect; empty without metadata: shown for every base.

    They do not check the tensors. `architecture`: the ModelSpec architecture has priority, as in
    Forge.
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
