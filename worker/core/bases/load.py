"""Loads a base model from a diffusers folder or a single file; downloads nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from worker.core import starter
from worker.core.bases.family import BaseInfo
from worker.core.bases.folder import FolderSource
from worker.core.bases.inspect import blamed_on_the_installation, inspect_base
from worker.core.bases.ldm import SingleFileSource
from worker.core.bases.weights import StateDict, StoredTensor, build_module, fill_weights
from worker.core.families.family import Component
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates
from worker.core.int8_linear import Int8Linear, quantize_rows

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
DenoiserDtype = torch.dtype | Literal["stored"] | None
Source = FolderSource | SingleFileSource
"""A reader of a base model's components."""


@dataclass
class LoadedBase:
    """The components of a base model, in evaluation mode and without gradients.

    Components that were not requested are None or missing from the lists. `stored_denoiser`: the
    files' tensors of the denoiser by parameter name; empty if the base does not come from files.
    """

    info: BaseInfo
    denoiser: Any = None
    vae: Any = None
    text_encoders: list[Any] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    stored_denoiser: dict[str, StoredTensor] = field(default_factory=dict)

    def adaptable(self) -> dict[str, nn.Module]:
        """The loaded denoiser and text encoders by component name: what adapters can change."""
        names = ("text_encoder", "text_encoder_2")
        found = {"unet": self.denoiser, **dict(zip(names, self.text_encoders, strict=False))}
        return {name: module for name, module in found.items() if module is not None}

    def read_denoiser_weight(self, path: str) -> Tensor | None:
        """A denoiser's weight as it is stored; None without files. Raises BaseModelError."""
        stored = self.stored_denoiser.get(f"{path}.weight")
        return None if stored is None else stored.read()

    def cast_denoiser(self, dtype: torch.dtype) -> None:
        """Cast the denoiser to `dtype`, one parameter after another.

        A denoiser in bf16 is read again from its files, since it was rounded when it was loaded. It
        must not have adapters. Raises BaseModelError.
        """
        rounded = self.denoiser.dtype is torch.bfloat16 and dtype is not torch.bfloat16
        for name, parameter in self.denoiser.named_parameters():
            if not parameter.dtype.is_floating_point:  # int8 rows stay what they are
                continue
            stored = self.stored_denoiser.get(name) if rounded else None
            data = parameter.data if stored is None else stored.read(dtype)
            parameter.data = data.to(parameter.device, dtype)


def load_base(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Collection[str] | None = None,
    denoiser_dtype: DenoiserDtype = None,
    int8: Callable[[str], bool] | None = None,
) -> LoadedBase:
    """The base model at `path` with its weights in `dtype`, whatever the type on disk.

    Each tensor is read straight into this type and moved to the device, so that nothing is in
    memory twice, and no component whole in that of the host. The autoencoder stays fp32: SDXL's
    overflows in fp16. `denoiser_dtype` is another type for the denoiser, or "stored" for that of
    its file, which for SDXL in fp16 saves 5 GB until it is cast. `components` names the components
    to load (of COMPONENTS; None means all). `int8` chooses linear layers of the denoiser by path
    that become int8 rows, each before the next is read. Raises BaseModelError.
    """
    info = inspect_base(path)
    with blamed_on_the_installation() if path == starter.PATH else nullcontext():
        return _load(
            info,
            components=components,
            dtype=dtype,
            denoiser_dtype=denoiser_dtype,
            device=device,
            int8=int8,
        )


def _load(
    info: BaseInfo,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    components: Collection[str] | None,
    denoiser_dtype: DenoiserDtype,
    int8: Callable[[str], bool] | None,
) -> LoadedBase:
    names = set(COMPONENTS if components is None else components) & info.parameters.keys()
    source = make_source(info)
    base = LoadedBase(info=info, scheduler_config=source.scheduler_config())
    of_denoiser = dtype if denoiser_dtype is None else denoiser_dtype
    kinds = {"vae": torch.float32, "unet": None if of_denoiser == "stored" else of_denoiser}
    for name in (name for name in COMPONENTS if name in names):
        module = build_module(*source.config(name))
        kind = kinds.get(name, dtype)
        if name == "unet" and int8 is not None:
            weights = _with_rows(module, source.locate(name, module), int8, kind, device)
        else:
            weights = source.weights(name, kind, module, device)
        fill_weights(module, weights, name)
        module.to(device)  # what no file stores
        if name == "unet":
            base.stored_denoiser = source.locate(name, module)
        if name.startswith("text_encoder"):
            base.text_encoders.append(module)
            base.tokenizers.append(source.tokenizer(name))
        else:
            setattr(base, "denoiser" if name == Component.DENOISER else name, module)
    return base


def _with_rows(
    module: nn.Module,
    stored: dict[str, StoredTensor],
    chosen: Callable[[str], bool],
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> StateDict:
    """Make the chosen linear layers int8 rows; returns their tensors and all others."""
    rounded: StateDict = {}
    for path, layer in list(module.named_modules()):
        if type(layer) is not nn.Linear or not chosen(path):
            continue
        if (weight := stored.pop(f"{path}.weight", None)) is not None:
            rows, scale = quantize_rows(weight.read().to(device))
            module.set_submodule(path, Int8Linear(rows, scale, layer.bias))
            rounded |= {f"{path}.weight": rows, f"{path}.scale": scale}
    return rounded | {name: tensor.read(dtype).to(device) for name, tensor in stored.items()}


def make_source(info: BaseInfo) -> Source:
    """The reader for an inspected base model."""
    if info.layout == "diffusers":
        return FolderSource(info)
    return SingleFileSource(info.path, info)


def encode_prompts(
    base: LoadedBase, prompts: Sequence[str], *, device: torch.device | str, clip_skip: int = 1
) -> TextStates:
    """The states of `prompts` in the form that the base's denoiser was trained with."""
    network = network_of(base.info.family)
    encoders, tokenizers = base.text_encoders, base.tokenizers
    return network.encode(encoders, tokenizers, prompts, device=device, clip_skip=clip_skip)
