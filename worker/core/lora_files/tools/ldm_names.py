"""Names of a base's tensors in single files: LDM's UNet and VAE, HF's or OpenCLIP's encoders.

The layouts are those of CompVis/stable-diffusion (`openaimodel.py`, `model.py`),
Stability-AI/generative-models and mlfoundations/open_clip. A tensor of diffusers or transformers
is a complete tensor of the file, or some of its rows (queries, keys and values of OpenCLIP).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from worker.core.bases.family import BaseModelError, Shapes
from worker.core.families.stable_diffusion.names import RESNET_TO_LDM, unet_path_to_ldm

UNET, VAE = "model.diffusion_model.", "first_stage_model."
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_CLIP_TOP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


@dataclass(frozen=True)
class LdmTensor:
    """The location of a module's tensor in a single file.

    `third`: the third of its rows (OpenCLIP's fused queries, keys, values), None for all rows;
    `transposed`: stored as (in, out); `square`: stored as a 1 × 1 convolution.
    """

    name: str
    third: int | None = None
    transposed: bool = False
    square: bool = False


@dataclass(frozen=True)
class LdmNames:
    """The names for one base, created by `ldm_names`."""

    first_up_has_attention: bool
    vae_levels: int
    open_clip: frozenset[str]
    prefixes: Mapping[str, str]

    def of(self, component: str, name: str) -> LdmTensor:
        """The location of a module's tensor `name`. Raises BaseModelError if it has none."""
        try:
            if component == "unet":
                return LdmTensor(UNET + self._unet_name(name))
            if component == "vae":
                return self._vae_tensor(name)
            return self._encoder_tensor(component, name)
        except (ValueError, IndexError, KeyError) as error:
            raise BaseModelError(
                f"A single file cannot contain the tensor {name} of the {component}. Choose a "
                "diffusers folder instead."
            ) from error

    def _unet_name(self, name: str) -> str:
        path, _, leaf = name.rpartition(".")
        part = re.fullmatch(r".+\.resnets\.\d+\.(.+)", path)
        if part and part[1] not in RESNET_TO_LDM:
            raise ValueError(path)
        ldm = unet_path_to_ldm(path, first_up_has_attention=self.first_up_has_attention)
        return f"{ldm}.{leaf}"

    def _vae_tensor(self, name: str) -> LdmTensor:
        found = re.fullmatch(r"(encoder|decoder)\.(down_blocks|up_blocks)\.(\d+)\.(.+)", name)
        if found:
            side, kind, number, rest = found.groups()
            level = int(number) if kind == "down_blocks" else self.vae_levels - 1 - int(number)
            stem = f"{VAE}{side}.{kind.removesuffix('_blocks')}.{level}"
            parts = rest.split(".")
            if parts[0] in ("downsamplers", "upsamplers"):
                return LdmTensor(f"{stem}.{parts[0].removesuffix('rs')}.{'.'.join(parts[2:])}")
            leaf = ".".join(parts[2:]).replace("conv_shortcut", "nin_shortcut")
            return LdmTensor(f"{stem}.block.{parts[1]}.{leaf}")
        middle = re.fullmatch(r"(encoder|decoder)\.mid_block\.(\w+)\.(\d+)\.(.+)\.(\w+)", name)
        if middle:
            side, kind, number, rest, leaf = middle.groups()
            if kind == "resnets":
                return LdmTensor(f"{VAE}{side}.mid.block_{int(number) + 1}.{rest}.{leaf}")
            square = rest != "group_norm" and leaf == "weight"
            return LdmTensor(f"{VAE}{side}.mid.attn_1.{_VAE_ATTENTION[rest]}.{leaf}", square=square)
        return LdmTensor(VAE + name.replace("conv_norm_out", "norm_out"))

    def _encoder_tensor(self, component: str, name: str) -> LdmTensor:
        prefix = self.prefixes[component]
        bare = name.removeprefix("text_model.")
        if component not in self.open_clip:
            return LdmTensor(f"{prefix}text_model.{bare}")
        if bare == "text_projection.weight":
            return LdmTensor(f"{prefix}text_projection", transposed=True)
        if bare in _OPEN_CLIP_TOP:
            return LdmTensor(prefix + _OPEN_CLIP_TOP[bare])
        _, _, layer, *rest, leaf = bare.split(".")
        stem, path = f"{prefix}transformer.resblocks.{int(layer)}", ".".join(rest)
        if path in _OPEN_CLIP:
            return LdmTensor(f"{stem}.{_OPEN_CLIP[path]}.{leaf}")
        return LdmTensor(f"{stem}.attn.in_proj_{leaf}", third=_THIRDS[rest[-1]])


def ldm_names(
    modules: Mapping[str, Shapes], *, open_clip: Collection[str], prefixes: Mapping[str, str]
) -> LdmNames:
    """The names for a base with these tensors.

    `open_clip`: the encoders with OpenCLIP's names; `prefixes`: the prefix of each encoder.
    """
    unet, vae = modules["unet"], modules["vae"]
    levels = [int(n.split(".")[2]) for n in vae if n.startswith("encoder.down_blocks.")]
    return LdmNames(
        first_up_has_attention=any(n.startswith("up_blocks.0.attentions.") for n in unet),
        vae_levels=max(levels, default=-1) + 1,
        open_clip=frozenset(open_clip),
        prefixes=prefixes,
    )
