"""Loads a base model from a diffusers folder or a single file; downloads nothing."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from worker.core import starter
from worker.core.bases.family import BaseInfo
from worker.core.bases.folder import FolderSource
from worker.core.bases.inspect import blamed_on_the_installation, inspect_base
from worker.core.bases.ldm import SingleFileSource
from worker.core.bases.weights import StateDict, StoredTensor, build_module, fill_weights
from worker.core.families.family import Component

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
UnetDtype = torch.dtype | Literal["stored"] | None


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
        rounded = self.unet.dtype is torch.bfloat16 and dtype is not torch.bfloat16
        for name, parameter in self.unet.named_parameters():
            stored = self.stored_unet.get(name) if rounded else None
            data = parameter.data if stored is None else stored.read(dtype)
            parameter.data = data.to(parameter.device, dtype)


class Source(Protocol):
    """A reader of a base model's components."""

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(class name, config) of a component."""

    def weights(self, component: str, dtype: torch.dtype | None, module: nn.Module) -> StateDict:
        """The weights under the parameter names of `module`."""

    def locate(self, component: str, module: nn.Module) -> dict[str, StoredTensor]:
        """The stored tensors by their names in `module`."""

    def tokenizer(self, component: str) -> Any:
        """The tokenizer of a text encoder."""

    def scheduler_config(self) -> dict[str, Any]:
        """The scheduler's config."""


def load_base(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Collection[str] | None = None,
    unet_dtype: UnetDtype = None,
) -> LoadedBase:
    """The base model at `path` with its weights in `dtype`, whatever the type on disk.

    Each tensor is read straight into this type, so that nothing is in memory twice. The
    autoencoder stays fp32: SDXL's overflows in fp16. `unet_dtype` is another type for the UNet, or
    "stored" for that of its file, which for SDXL in fp16 saves 5 GB until it is cast. `components`
    names the components to load (of COMPONENTS; None means all). Raises BaseModelError.
    """
    info = inspect_base(path)
    with blamed_on_the_installation() if path == starter.PATH else nullcontext():
        return _load(info, components=components, dtype=dtype, unet_dtype=unet_dtype, device=device)


def _load(
    info: BaseInfo,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    components: Collection[str] | None,
    unet_dtype: UnetDtype,
) -> LoadedBase:
    names = set(COMPONENTS if components is None else components) & info.parameters.keys()
    source = make_source(info)
    base = LoadedBase(info=info, scheduler_config=source.scheduler_config())
    of_unet = dtype if unet_dtype is None else unet_dtype
    kinds = {"vae": torch.float32, "unet": None if of_unet == "stored" else of_unet}
    for name in (name for name in COMPONENTS if name in names):
        module = build_module(*source.config(name))
        fill_weights(module, source.weights(name, kinds.get(name, dtype), module), name)
        module.to(device)
        if name == "unet":
            base.stored_denoiser = source.locate(name, module)
        if name.startswith("text_encoder"):
            base.text_encoders.append(module)
            base.tokenizers.append(source.tokenizer(name))
        else:
            setattr(base, "denoiser" if name == Component.DENOISER else name, module)
    return base


def make_source(info: BaseInfo) -> Source:
    """The reader for an inspected base model."""
    if info.layout == "diffusers":
        return FolderSource(info)
    return SingleFileSource(info.path, info)
