"""Names of adapter modules: canonical (diffusers paths), kohya's, and SDXL's LDM block names.

A kohya stem is a prefix and the module path, with underscores in place of dots. SDXL files use
the LDM paths of Stability-AI/generative-models, all others those of diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from worker.core.families.adapter_file import AdapterFiles, SingleFileNames, UnknownNameError
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.layers import PUBLISHED, published_shapes

TEXT_PREFIX = "text_model."
LYCORIS_PREFIX = "lycoris_"
GENERATIVE_MODELS = "https://github.com/Stability-AI/generative-models"  # whose names SDXL has
_PER_BLOCK = 3  # two resnets and a sampler (or a third resnet) in each block of SD and SDXL

RESNET_TO_LDM = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_RESNET_FROM_LDM = {ldm: name for name, ldm in RESNET_TO_LDM.items()}
_TOP_TO_LDM = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_TOP_FROM_LDM = {ldm: name for name, ldm in _TOP_TO_LDM.items()}

# Names that contain underscores; all other underscores in a kohya stem stand for dots.
_WORDS = (
    *("down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v"),
    *("to_out", "proj_in", "proj_out", "conv_shortcut", "time_emb_proj", "conv_in", "conv_out"),
    *("time_embedding", "linear_1", "linear_2", "add_embedding", "conv_norm_out"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "final_layer_norm"),
    *("layer_norm1", "layer_norm2", "token_embedding", "position_embedding", "text_projection"),
    *("input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers"),
    *("skip_connection", "time_embed", "label_emb"),
)
_TOKEN = re.compile("|".join([*sorted(_WORDS, key=len, reverse=True), "[a-z]+[0-9]?", "[0-9]+"]))


def kohya_prefix(component: Component, family: BaseFamily) -> str:
    """The prefix of a component's stems; the encoders are numbered in SDXL only."""
    if component is Component.DENOISER:
        return "lora_unet_"
    if family is not BaseFamily.SDXL:
        return "lora_te_"
    return "lora_te1_" if component is Component.TEXT_ENCODER else "lora_te2_"


def kohya_stem(family: BaseFamily, component: Component, path: str) -> str:
    """The stem of a canonical module in a kohya file."""
    if component is Component.DENOISER and family is BaseFamily.SDXL:
        path = to_ldm(path)
    return kohya_prefix(component, family) + path.replace(".", "_")


def from_kohya_stem(stem: str) -> tuple[Component, str]:
    """(component, canonical path) of a kohya stem; raises UnknownNameError for an unknown name."""
    prefixes = {
        "lora_unet_": Component.DENOISER,
        "lora_te_": Component.TEXT_ENCODER,
        "lora_te1_": Component.TEXT_ENCODER,
        "lora_te2_": Component.TEXT_ENCODER_2,
    }
    if stem.startswith(LYCORIS_PREFIX):  # LyCORIS' own wrapper, of one network
        path = stem.removeprefix(LYCORIS_PREFIX)
        of_encoder = path.startswith(("text_model_", "encoder_layers_"))
        stem = f"{'lora_te_' if of_encoder else 'lora_unet_'}{path}"
    for prefix, component in prefixes.items():
        if stem.startswith(prefix):
            path = _dotted_path(stem.removeprefix(prefix))
            return component, from_ldm(
                path
            ) if component is Component.DENOISER else with_text_prefix(path)
    raise _unknown(stem)


def with_text_prefix(path: str) -> str:
    """A text encoder's path with the prefix `text_model.` of the canonical form."""
    return path if path.startswith(TEXT_PREFIX) else TEXT_PREFIX + path


def to_ldm(path: str) -> str:
    """The LDM path of a diffusers UNet path (SDXL's layout: samplers after attention)."""
    try:
        return unet_path_to_ldm(path)
    except (ValueError, IndexError) as error:
        raise UnknownNameError(
            f"The module {path[:80]!r} cannot be named in SDXL files."
        ) from error


def unet_path_to_ldm(path: str, *, first_up_has_attention: bool = True) -> str:
    """The LDM path of a diffusers UNet path. Raises ValueError or IndexError for others.

    Without attention in the first up block, its upsampler is one place earlier.
    """
    if path in _TOP_TO_LDM:
        return _TOP_TO_LDM[path]
    parts = path.split(".")
    if parts[0] == "mid_block":
        index, rest = int(parts[2]), ".".join(parts[3:])
        if parts[1] == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * index}.{RESNET_TO_LDM.get(rest, rest)}"
    if parts[0] not in ("down_blocks", "up_blocks") or len(parts) < 5:
        raise ValueError(path)
    down = parts[0] == "down_blocks"
    block, kind, index, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
    stem = "input_blocks" if down else "output_blocks"
    first = _PER_BLOCK * block + (1 if down else 0)
    if kind == "downsamplers":
        return f"{stem}.{first + 2}.0.op"
    if kind == "upsamplers":
        place = 2 if block > 0 or first_up_has_attention else 1
        return f"{stem}.{first + 2}.{place}.conv"
    if kind == "attentions":
        return f"{stem}.{first + index}.1.{rest}"
    return f"{stem}.{first + index}.0.{RESNET_TO_LDM.get(rest, rest)}"


def from_ldm(path: str) -> str:
    """The diffusers path of an LDM UNet path; other paths are returned unchanged."""
    try:
        return _TOP_FROM_LDM.get(path) or _block_from_ldm(path)
    except (ValueError, IndexError) as error:
        raise _unknown(path) from error


def _block_from_ldm(path: str) -> str:
    parts = path.split(".")
    rest = ".".join(parts[3:])
    if parts[0] == "middle_block":
        rest, index = ".".join(parts[2:]), int(parts[1])
        if index == 1:
            return f"mid_block.attentions.0.{rest}"
        return f"mid_block.resnets.{index // 2}.{_RESNET_FROM_LDM.get(rest, rest)}"
    if parts[0] not in ("input_blocks", "output_blocks"):
        return path
    down = parts[0] == "input_blocks"
    block, index = divmod(int(parts[1]) - (1 if down else 0), _PER_BLOCK)
    stem = f"{'down' if down else 'up'}_blocks.{block}"
    if down and rest == "op":
        return f"{stem}.downsamplers.0.conv"
    if not down and rest == "conv":
        return f"{stem}.upsamplers.0.conv"
    if parts[2] == "1":
        return f"{stem}.attentions.{index}.{rest}"
    return f"{stem}.resnets.{index}.{_RESNET_FROM_LDM.get(rest, rest)}"


def _dotted_path(name: str) -> str:
    """`down_blocks_0_attn1_to_q` as `down_blocks.0.attn1.to_q`."""
    parts: list[str] = []
    position = 0
    while position < len(name) or not parts:
        found = _TOKEN.match(name, position)
        if found is None or (found.end() < len(name) and name[found.end()] != "_"):
            raise _unknown(name)
        parts.append(found[0])
        position = found.end() + 1
    return ".".join(parts)


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError(f"The file has a module with the unknown name {name[:80]!r}.")


def family_of_header(metadata: Mapping[str, str]) -> BaseFamily | None:
    """The family named in a file's metadata, or None."""
    version = metadata.get("ss_base_model_version", "").lower()
    architecture = metadata.get("modelspec.architecture", "").lower()
    if "xl" in version or "stable-diffusion-xl" in architecture:
        return BaseFamily.SDXL
    if metadata.get("ss_v2") == "True" or "stable-diffusion-v2" in architecture:
        return BaseFamily.SD2
    if version or "stable-diffusion-v1" in architecture:
        return BaseFamily.SD1
    return None


def _files(
    family: BaseFamily, mixin: str, header: Mapping[str, str], single_file: SingleFileNames
) -> AdapterFiles:
    return AdapterFiles(
        shapes=partial(published_shapes, family),
        networks=PUBLISHED[family],
        stem=partial(kohya_stem, family),
        mixin=mixin,
        header=header,
        single_file=single_file,
    )


_SD_INDEX = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}
FILES = {
    BaseFamily.SD1: _files(
        BaseFamily.SD1,
        "StableDiffusionLoraLoaderMixin",
        {"ss_v2": "False"},
        SingleFileNames(
            pipeline="StableDiffusionPipeline",
            index=_SD_INDEX,
            encoders={"text_encoder": "cond_stage_model.transformer."},
        ),
    ),
    BaseFamily.SD2: _files(
        BaseFamily.SD2,
        "StableDiffusionLoraLoaderMixin",
        {"ss_v2": "True"},
        SingleFileNames(
            pipeline="StableDiffusionPipeline",
            index=_SD_INDEX,
            encoders={"text_encoder": "cond_stage_model.model."},
            open_clip=("text_encoder",),
            repeats_last_layer=True,
        ),
    ),
    BaseFamily.SDXL: _files(
        BaseFamily.SDXL,
        "StableDiffusionXLLoraLoaderMixin",
        {"ss_v2": "False", "modelspec.implementation": GENERATIVE_MODELS},
        SingleFileNames(
            pipeline="StableDiffusionXLPipeline",
            index={"force_zeros_for_empty_prompt": True},
            encoders={
                "text_encoder": "conditioner.embedders.0.transformer.",
                "text_encoder_2": "conditioner.embedders.1.model.",
            },
            open_clip=("text_encoder_2",),
        ),
    ),
}
