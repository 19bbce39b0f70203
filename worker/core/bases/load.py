"""Loads a base model from a diffusers folder or a single file; downloads nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from worker.core.bases.family import BaseInfo
from worker.core.bases.folder import FolderSource
from worker.core.bases.inspect import inspect_base
from worker.core.bases.ldm import SingleFileSource
from worker.core.bases.weights import StateDict, build_module, fill_weights

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass
class LoadedBase:
    """The components of a base model, in evaluation mode and without gradients.

    Components that were not requested are None or missing from the lists.
    """

    info: BaseInfo
    unet: Any = None
    vae: Any = None
    text_encoders: list[Any] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)
    scheduler_config: dict[str, Any] = field(default_factory=dict)

    def adaptable(self) -> dict[str, nn.Module]:
        """The loaded UNet and text encoders by component name: what adapters can change."""
        names = ("text_encoder", "text_encoder_2")
        found = {"unet": self.unet, **dict(zip(names, self.text_encoders, strict=False))}
        return {name: module for name, module in found.items() if module is not None}


class Source(Protocol):
    """A reader of a base model's components."""

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(class name, config) of a component."""

    def weights(self, component: str, dtype: torch.dtype | None, module: nn.Module) -> StateDict:
        """The weights under the parameter names of `module`."""

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
    unet_as_stored: bool = False,
) -> LoadedBase:
    """The base model at `path` with its weights in `dtype`, whatever the type on disk.

    The autoencoder stays fp32: SDXL's overflows in fp16. `unet_as_stored` keeps the UNet in the
    number type of its file, which for SDXL in fp16 saves 5 GB until it is cast. `components` names
    the components to load (of COMPONENTS; None means all). Raises BaseModelError.
    """
    info = inspect_base(path)
    names = set(COMPONENTS if components is None else components) & info.parameters.keys()
    source = make_source(info)
    base = LoadedBase(info=info, scheduler_config=source.scheduler_config())
    for name in (name for name in COMPONENTS if name in names):
        module = build_module(*source.config(name))
        kinds = {"vae": torch.float32, "unet": None if unet_as_stored else dtype}
        fill_weights(module, source.weights(name, kinds.get(name, dtype), module), name)
        module.to(device)
        if name.startswith("text_encoder"):
            base.text_encoders.append(module)
            base.tokenizers.append(source.tokenizer(name))
        else:
            setattr(base, name, module)
    return base


def make_source(info: BaseInfo) -> Source:
    """The reader for an inspected base model."""
    if info.layout == "diffusers":
        return FolderSource(info.path)
    return SingleFileSource(info.path, info)
