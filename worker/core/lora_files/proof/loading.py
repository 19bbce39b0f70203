"""Loading a file with the installed diffusers, through its own `load_lora_weights`.

The layers need no weights: a base of any size can be checked by its shapes alone, because peft
stores a loaded change separately from the layer that it changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging
from diffusers import DiffusionPipeline, loaders
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from worker.core.families.adapter_files import files_of
from worker.core.families.family import BaseFamily
from worker.core.families.stable_diffusion.names import with_text_prefix
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.proof.check import compare_module
from worker.core.lora_files.proof.result import DiffusersLoad

ADAPTER_NAME = "proof"


class DiffusersRefusal(Exception):
    """diffusers cannot load the file; the message is the first line of its own error."""


class _Host(DiffusionPipeline):  # type: ignore[misc]
    """A pipeline with only the components that adapters change."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.register_modules(**parts)
        self._parts = parts

    @property
    def components(self) -> dict[str, nn.Module]:
        return self._parts


def strip_weights(module: nn.Module) -> nn.Module:
    """The module with weights of the same shapes that take no memory: one zero, expanded."""
    with torch.no_grad():
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                empty = torch.zeros(1).expand(weight.shape)
                part.register_parameter(name, nn.Parameter(empty, requires_grad=False))
            for name, buffer in part.named_buffers(recurse=False):
                part.register_buffer(name, torch.zeros(1).expand(buffer.shape), persistent=False)
    return module


@contextmanager
def load_with_diffusers(
    path: Path, parts: Mapping[str, nn.Module], family: BaseFamily
) -> Iterator[None]:
    """Context in which `parts` (unet, text_encoder, …) have the file's adapter loaded.

    The parts are restored afterwards. Raises DiffusersRefusal.
    """
    with _silence_logs():
        files = files_of(family)
        named = {files.denoiser if name == "unet" else name: part for name, part in parts.items()}
        mixin = getattr(loaders, files.mixin)
        host: Any = type("Host", (_Host, mixin), {})(**named)
        try:
            host.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=ADAPTER_NAME,
                use_safetensors=True,
            )
        except Exception as error:  # any of diffusers, peft, transformers and safetensors
            _unload_adapter(host)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DiffusersRefusal(lines[0][:300]) from error
    try:
        yield
    finally:
        _unload_adapter(host)


def measure_loaded_adapter(
    adapter: LoraAdapter, parts: Mapping[str, nn.Module], *, weights: bool = False
) -> DiffusersLoad:
    """The adapter that is loaded in `parts`, compared with `adapter` module by module.

    `weights`: merge it into the layers' own weights and compare how far those move.
    """
    found = dict(_lora_layers(parts))
    worst = (0.0, "")
    for module in adapter.modules:
        layer = found.pop(module.key, None)
        if layer is None:
            worst = max(worst, (float("inf"), module.key))
            continue
        if weights:
            error = _merge_error(layer, module.delta())
        else:
            similarity = compare_module(_factor_pair(layer), module)
            scale = layer.scaling[ADAPTER_NAME]
            error = similarity.error(scale) if similarity is not None else float("inf")
        worst = max(worst, (error, module.key))
    if found:  # a layer that was not trained
        worst = (float("inf"), min(found))
    return DiffusersLoad(
        diffusers=version("diffusers"),
        modules=len(adapter.modules),
        worst_error=min(worst[0], 1.0),
        worst_module=worst[1],
        weights=weights,
    )


def _lora_layers(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, Any]]:
    """(canonical key, peft's layer) of every changed layer."""
    for component, part in parts.items():
        for name, layer in part.named_modules():
            if isinstance(layer, LoraLayer) and ADAPTER_NAME in layer.lora_A:
                path = name if component == "unet" else with_text_prefix(name)
                yield f"{component}.{path}", layer


def _factor_pair(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A[ADAPTER_NAME].weight.detach(), layer.lora_B[ADAPTER_NAME].weight.detach()


def _merge_error(layer: Any, expected: Tensor) -> float:
    """Relative error of the change of the layer's weight when peft merges the adapter.

    A difference within the rounding of the weight in fp32 counts as none.
    """
    weight = layer.get_base_layer().weight
    before = weight.detach().clone()
    layer.merge(adapter_names=[ADAPTER_NAME])
    moved = weight.detach() - before
    layer.unmerge()
    with torch.no_grad():
        weight.copy_(before)
    distance = float((moved - expected).norm())
    rounding = 2**-24 * float(before.norm())
    size = float(expected.norm())
    if distance <= rounding:
        return 0.0
    return distance / size if size else float("inf")


def _unload_adapter(host: Any) -> None:
    with _silence_logs():
        host.unload_lora_weights()


@contextmanager
def _silence_logs() -> Iterator[None]:
    """Silence the messages of diffusers and transformers, which are meant for whole checkpoints."""
    levels = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(levels[0])
        diffusers_logging.set_verbosity(levels[1])
        if bars:
            transformers_logging.enable_progress_bar()
