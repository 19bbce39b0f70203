"""A base model in memory, from a diffusers folder or a single file; nothing is downloaded."""

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
from worker.core.bases.weights import StateDict, build, fill

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclass
class LoadedBase:
    """A base model's parts, in evaluation mode and without gradients.

    Parts that were not asked for are None or missing from the lists. `scheduler_config` is the
    base's own.
    """

    info: BaseInfo
    unet: Any = None
    vae: Any = None
    text_encoders: list[Any] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)
    scheduler_config: dict[str, Any] = field(default_factory=dict)

    def adaptable(self) -> dict[str, nn.Module]:
        """The loaded UNet and text encoders by component name: what adapters may change."""
        names = ("text_encoder", "text_encoder_2")
        found = {"unet": self.unet, **dict(zip(names, self.text_encoders, strict=False))}
        return {name: module for name, module in found.items() if module is not None}


class Source(Protocol):
    """Where the parts of a base come from."""

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(class name, config) of a component."""

    def weights(self, component: str, dtype: torch.dtype | None, module: nn.Module) -> StateDict:
        """The weights under the names that `module` uses."""

    def tokenizer(self, component: str) -> Any:
        """The tokenizer of a text encoder."""

    def scheduler_config(self) -> dict[str, Any]:
        """The noise schedule."""


def load_base(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Collection[str] | None = None,
    unet_as_stored: bool = False,
) -> LoadedBase:
    """The base at `path` with its weights as `dtype`, whatever they are on disk.

    The autoencoder always stays fp32: SDXL's overflows in fp16. `unet_as_stored` leaves the UNet
    in the number type of its file, which for SDXL in fp16 saves 5 GB until it is cast.
    `components` names the parts to load (of COMPONENTS; None means all). Raises BaseModelError
    with a sentence.
    """
    info = inspect_base(path)
    wanted = set(COMPONENTS if components is None else components) & info.parameters.keys()
    source = source_of(info)
    base = LoadedBase(info=info, scheduler_config=source.scheduler_config())
    for name in (name for name in COMPONENTS if name in wanted):
        module = build(*source.config(name))
        kinds = {"vae": torch.float32, "unet": None if unet_as_stored else dtype}
        fill(module, source.weights(name, kinds.get(name, dtype), module), name)
        module.to(device)
        if name.startswith("text_encoder"):
            base.text_encoders.append(module)
            base.tokenizers.append(source.tokenizer(name))
        else:
            setattr(base, name, module)
    return base


def source_of(info: BaseInfo) -> Source:
    """What reads the parts of an inspected base."""
    if info.layout == "diffusers":
        return FolderSource(info.path)
    return SingleFileSource(info.path, info)
