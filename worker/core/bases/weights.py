"""Builds modules without initializing weights, and fills them from safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from worker.core.bases.family import BaseModelError
from worker.core.bases.uninitialized import WithoutInitialization

StateDict = dict[str, Tensor]
_DIFFUSERS = {
    kind.__name__: kind for kind in (UNet2DConditionModel, AutoencoderKL, AutoencoderTiny)
}
_TRANSFORMERS = {kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)}


def read_tensors(
    files: Iterable[Path], dtype: torch.dtype | None, *, rename: Callable[[str], str | None]
) -> StateDict:
    """Copies of the tensors of `files` in `dtype` under new names; `rename` drops a tensor by None.

    Without a dtype they keep their stored type.
    """
    tensors: StateDict = {}
    for file in files:
        with safe_open(file, framework="pt", device="cpu") as content:
            for name in content.keys():  # noqa: SIM118 - not a dict
                if (new := rename(name)) is not None:
                    tensors[new] = content.get_tensor(name).to(dtype, copy=True)
    return tensors


def build_module(kind: str, config: dict[str, Any]) -> nn.Module:
    """A module of class `kind` whose weights have no memory yet (on torch's meta device)."""
    try:
        with torch.device("meta"), WithoutInitialization():
            if kind in _TRANSFORMERS:
                return _TRANSFORMERS[kind](CLIPTextConfig(**config))  # type: ignore[no-any-return]
            if kind in _DIFFUSERS:
                return _DIFFUSERS[kind].from_config(config)  # type: ignore[no-any-return]
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise BaseModelError(
            f"The config of the base model's {kind} is invalid. Use another model."
        ) from error
    raise BaseModelError(f"The component class {kind[:60]!r} is not supported. Use another model.")


def fill_weights(module: nn.Module, weights: StateDict, component: str) -> None:
    """Load the weights into `module`; BaseModelError when some are missing or have other shapes."""
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise BaseModelError(
                f"The base model is incomplete: {component} has no {name}. Use another."
            )
        if weights[name].shape != tensor.shape:
            raise BaseModelError(
                f"{name} in the base model's {component} has the shape "
                f"{tuple(weights[name].shape)}, but its config needs {tuple(tensor.shape)}. Use "
                "another model."
            )
    module.load_state_dict({name: weights[name] for name in expected}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # CLIP's position_ids, the only buffer that is never stored
            owner, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    module.requires_grad_(False)
    module.eval()
