"""The components of a base model in a single safetensors file with the LDM layout."""

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
from worker.core.bases.weights import StateDict, StoredTensor, stored_tensors


class SingleFileSource:
    """Reads a single file; configs are derived from tensor shapes, so nothing is downloaded."""

    def __init__(self, path: Path, info: BaseInfo) -> None:
        self.path, self.info = path, info
        self.shapes = read_shapes([path])
        self.parts = single_file.split_components(self.shapes)

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(class name, config) of a component."""
        family, side = self.info.family, self.info.resolution
        if component == "unet":
            return "UNet2DConditionModel", single_file.unet_config(self.parts, family, side)
        if component == "vae":
            return "AutoencoderKL", single_file.vae_config(self.parts, family, side)
        kind = "CLIPTextModel" if component == "text_encoder" else "CLIPTextModelWithProjection"
        return kind, single_file.text_config(self.parts[component], family)

    def weights(
        self,
        component: str,
        dtype: torch.dtype | None,
        module: nn.Module,
        device: torch.device | str = "cpu",
    ) -> StateDict:
        """The weights under the parameter names of `module`, moved to `device` one by one."""
        stored = self._stored(component)
        tensors = {name: tensor.read(dtype).to(device) for name, tensor in stored.items()}
        return convert_names(component, self.prefix(component), tensors, module)

    def locate(self, component: str, module: nn.Module) -> dict[str, StoredTensor]:
        """The stored tensors by their names in `module`, except those stored in another form.

        The names are converted with tensors that have no memory, which are found again in the
        result.
        """
        stored = self._stored(component)
        empty = {name: torch.empty(t.shape, device="meta") for name, t in stored.items()}
        names = {id(tensor): name for name, tensor in empty.items()}
        converted = convert_names(component, self.prefix(component), dict(empty), module)
        return {
            new: stored[names[id(tensor)]]
            for new, tensor in converted.items()
            if id(tensor) in names
        }

    def _stored(self, component: str) -> dict[str, StoredTensor]:
        prefix = self.prefix(component)
        tensors = stored_tensors(self.path)
        return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    def tokenizer(self, component: str) -> Any:
        """CLIP's tokenizer; OpenCLIP's encoders were trained with `!` (token 0) as padding."""
        open_clip = single_file.is_open_clip(self.parts[component])
        length = single_file.text_config(self.parts[component], self.info.family)
        return clip_tokenizer(
            length=length["max_position_embeddings"], pad="!" if open_clip else "<|endoftext|>"
        )

    def scheduler_config(self) -> dict[str, Any]:
        """The scheduler's config."""
        return single_file.scheduler_config(self.shapes, self.info.prediction_type)

    def prefix(self, component: str) -> str:
        """The prefix of a component's tensor names."""
        known = single_file.ENCODER_PREFIXES.get(component, ())
        found = [p for p in known if any(name.startswith(p) for name in self.shapes)]
        return found[0] if found else single_file.PREFIXES[component]


def convert_names(component: str, prefix: str, tensors: StateDict, module: nn.Module) -> StateDict:
    """The tensors of one component, renamed from LDM names to those of `module`."""
    if component == "unet":
        return _keep_tensors(convert_ldm_unet_checkpoint(tensors, dict(module.config)))  # type: ignore[arg-type]
    if component == "vae":
        return _keep_tensors(convert_ldm_vae_checkpoint(tensors, dict(module.config)))  # type: ignore[arg-type]
    if f"{prefix}positional_embedding" in tensors:
        tensors = _keep_tensors(convert_open_clip_checkpoint(module, tensors, prefix=prefix))
    else:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    expected = module.state_dict()
    return {name: bare[n] for name in expected if (n := name.removeprefix("text_model.")) in bare}


def _keep_tensors(converted: dict[str, Any]) -> StateDict:
    return {name: tensor for name, tensor in converted.items() if isinstance(tensor, torch.Tensor)}
