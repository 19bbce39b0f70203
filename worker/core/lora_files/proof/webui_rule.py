"""Rule of AUTOMATIC1111's web UI, whose models have Stability's layout.

AUTOMATIC1111/stable-diffusion-webui 1.10.1 (read as lshqqytiger/stable-diffusion-webui-amdgpu
e61adddd): `extensions-builtin/Lora/networks.py` (convert_diffusers_name_to_compvis, load_network,
network_apply_weights), `network.py` (calc_scale).
"""

from __future__ import annotations

from collections.abc import Collection

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.proof.comfy_rule import ENCODER_LAYERS
from worker.core.lora_files.proof.content import (
    FileContent,
    LoaderReading,
    match_layer_names,
    use_other_changes,
)
from worker.core.lora_files.proof.header_rule import family_from_header
from worker.core.lora_files.proof.layout import ATTENDED_UP_BLOCKS, BaseLayout

FUSED_PARTS = ("q_proj", "k_proj", "v_proj", "out_proj")
_ENCODER_PREFIXES: dict[BaseFamily, dict[str, tuple[str, ...]]] = {
    BaseFamily.SD1: {"text_encoder": ("lora_te_", "lora_te1_")},
    BaseFamily.SD2: {"text_encoder": ("lora_te_",)},
    BaseFamily.SDXL: {"text_encoder": ("lora_te1_",), "text_encoder_2": ("lora_te2_",)},
}
_FUSED = {BaseFamily.SD2: "text_encoder.", BaseFamily.SDXL: "text_encoder_2."}


def read_as_a1111(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match diffusers' names by a formula made for SD 1.x, and LDM names unchanged.

    OpenCLIP's attention is one fused module: it is only patched if all four projections of a layer
    are in the file.
    """
    names: dict[str, list[str]] = {}
    for key, path in layout.paths("unet"):
        if (ldm := layout.ldm.get(key)) is None:
            continue
        names[key] = [f"lora_unet_{ldm.replace('.', '_')}"]
        # the formula places the first upsampler as in SD 1.x, before any attention
        if not (path == "up_blocks.0.upsamplers.0.conv" and 0 in ATTENDED_UP_BLOCKS[layout.family]):
            names[key].append(f"lora_unet_{path.replace('.', '_')}")
    prefixes = _ENCODER_PREFIXES[layout.family]
    for component, accepted in prefixes.items():
        for key, path in layout.paths(component):
            if key.endswith(ENCODER_LAYERS):
                names[key] = [prefix + path.replace(".", "_") for prefix in accepted]
    reading = match_layer_names(content, names)
    use_other_changes(reading, content, ("lora_unet_",))
    reading.seen_as = family_from_header(content.metadata, architecture=False)
    if layout.family in _FUSED:
        _drop_incomplete_attention(reading, content, _FUSED[layout.family])
    return reading


def can_change(key: str, layout: BaseLayout, expected: Collection[str]) -> bool:
    """True for all UNet layers of Stability's layout, and attention and MLP of the encoders.

    A fused attention layer is only changed if all four projections are trained.
    """
    if key.startswith("unet."):
        return key in layout.ldm
    if not key.endswith(ENCODER_LAYERS):
        return False
    layer, _, leaf = key.rpartition(".")
    if key.startswith(_FUSED.get(layout.family, "-")) and leaf in FUSED_PARTS:
        return all(f"{layer}.{part}" in expected for part in FUSED_PARTS)
    return True


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
