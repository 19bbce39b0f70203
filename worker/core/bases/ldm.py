"""The parts of a base that lies in a single safetensors file in the LDM layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import nn

from worker.core.bases import single_file
from worker.core.bases.family import BaseInfo
from worker.core.bases.inspect import read_shapes
from worker.core.bases.tokenizer import clip_tokenizer
from worker.core.bases.weights import StateDict, read_tensors


class SingleFileSource:
    """Reads a single file; the configs are told from its shapes, so nothing is downloaded."""

    def __init__(self, path: Path, info: BaseInfo) -> None:
        self.path, self.info = path, info
        self.shapes = read_shapes([path])
        self.parts = single_file.split(self.shapes)

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(class name, config) of a component."""
        family, side = self.info.family, self.info.resolution
        if component == "unet":
            return "UNet2DConditionModel", single_file.unet_config(self.parts, family, side)
        if component == "vae":
            return "AutoencoderKL", single_file.vae_config(self.parts, family, side)
        kind = "CLIPTextModel" if component == "text_encoder" else "CLIPTextModelWithProjection"
        return kind, single_file.text_config(self.parts[component], family)

    def weights(self, component: str, dtype: torch.dtype | None, module: nn.Module) -> StateDict:
        """The weights under the names that `module` uses."""
        prefix = self.prefix(component)
        tensors = read_tensors(
            [self.path], dtype, rename=lambda name: name if name.startswith(prefix) else None
        )
        return convert(component, prefix, tensors, module)

    def tokenizer(self, component: str) -> Any:
        """CLIP's tokenizer; OpenCLIP's encoders were trained with `!` (token 0) as padding."""
        open_clip = single_file.is_open_clip(self.parts[component])
        length = single_file.text_config(self.parts[component], self.info.family)
        return clip_tokenizer(
            length=length["max_position_embeddings"], pad="!" if open_clip else "<|endoftext|>"
        )

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule."""
        return single_file.scheduler_config(self.shapes, self.info.prediction_type)

    def prefix(self, component: str) -> str:
        """What the names of a component's tensors begin with."""
        known = single_file.ENCODER_PREFIXES.get(component, ())
        found = [p for p in known if any(name.startswith(p) for name in self.shapes)]
        return found[0] if found else single_file.PREFIXES[component]


def convert(component: str, prefix: str, tensors: StateDict, module: nn.Module) -> StateDict:
    """LDM-named tensors of one component under the names that `module` uses."""
    if component == "unet":
        return _plain(convert_ldm_unet_checkpoint(tensors, dict(module.config)))  # type: ignore[arg-type]
    if component == "vae":
        return _plain(convert_ldm_vae_checkpoint(tensors, dict(module.config)))  # type: ignore[arg-type]
    if f"{prefix}positional_embedding" in tensors:
        tensors = _plain(convert_open_clip_checkpoint(module, tensors, prefix=prefix))
    else:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    expected = module.state_dict()
    return {name: bare[n] for name in expected if (n := name.removeprefix("text_model.")) in bare}


def _plain(converted: dict[str, Any]) -> StateDict:
    return {name: tensor for name, tensor in converted.items() if isinstance(tensor, torch.Tensor)}
