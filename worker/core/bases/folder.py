"""The components of a base model in a diffusers folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from worker.core.bases.family import BaseInfo
from worker.core.bases.inspect import component_files, read_config
from worker.core.bases.tokenizer import read_tokenizer
from worker.core.bases.weights import StateDict, StoredTensor, stored_tensors
from worker.core.families.folder import stored_class
from worker.core.families.folders import folder_of

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class FolderSource:
    """Reads a diffusers folder with plain, fp16 or sharded weights."""

    def __init__(self, info: BaseInfo) -> None:
        self.path, self.kind = info.path, folder_of(info.family)

    def config(self, component: str) -> tuple[str, dict[str, Any]]:
        """(name of the class to build, config) of a component."""
        config = read_config(self.path, f"{self.kind.folders[component]}/config.json")
        stored = stored_class(config) or ("CLIPTextModel" if "text" in component else "")
        return self.kind.classes.get(component, {}).get(stored, stored), config

    def weights(
        self,
        component: str,
        dtype: torch.dtype | None,
        module: nn.Module,
        device: torch.device | str = "cpu",
    ) -> StateDict:
        """The weights under the parameter names of `module`, moved to `device` one by one."""
        found = self.locate(component, module)
        return {name: stored.read(dtype).to(device) for name, stored in found.items()}

    def locate(self, component: str, module: nn.Module) -> dict[str, StoredTensor]:
        """The stored tensors by their names in `module`."""
        expected = set(module.state_dict())
        return {
            new: stored
            for file in component_files(self.path, self.kind.folders[component])
            for name, stored in stored_tensors(file).items()
            if (new := next((n for n in possible_names(name) if n in expected), None))
        }

    def tokenizer(self, component: str) -> Any:
        """The tokenizer of a text encoder. Raises BaseModelError."""
        folder = self.path / component.replace("text_encoder", "tokenizer")
        return read_tokenizer(folder, self.kind.tokenizer)

    def scheduler_config(self) -> dict[str, Any]:
        """The scheduler's config."""
        return read_config(self.path, "scheduler/scheduler_config.json")


def possible_names(name: str) -> list[str]:
    """The names that a stored tensor may have in current modules.

    transformers dropped `text_model.` from CLIPTextModel in 5.6; diffusers renamed the
    autoencoder's attention (query, key, value, proj_attn) in 0.12. Language models that end with
    a head keep the rest under `model.`.
    """
    parts = name.split(".")
    if len(parts) >= 2 and parts[-2] in _OLD_ATTENTION and "attentions" in parts:
        parts[-2] = _OLD_ATTENTION[parts[-2]]
    short = [name.removeprefix(prefix) for prefix in ("text_model.", "model.")]
    return [name, *short, f"text_model.{name}", ".".join(parts)]
