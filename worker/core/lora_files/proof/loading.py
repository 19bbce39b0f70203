"""What the installed diffusers itself makes of a file, through its own `load_lora_weights`.

The layers need not hold any weights: a base of any size is checked in its shapes alone, because
peft keeps a loaded change beside the layer that it changes.
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
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import Adapter
from worker.core.lora_files.compatible import TEXT_PREFIX
from worker.core.lora_files.proof.check import compare
from worker.core.lora_files.proof.result import Loaded

NAME = "proof"


class DiffusersRefusal(Exception):
    """diffusers did not load the file; the message is its own first line."""


class _Host(DiffusionPipeline, StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """A pipeline of just the parts that adapters are loaded into."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.register_modules(unet=unet, text_encoder=text_encoder)


class _HostXL(DiffusionPipeline, StableDiffusionXLLoraLoaderMixin):  # type: ignore[misc]
    """The same of SDXL."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, text_encoder_2: nn.Module) -> None:
        super().__init__()
        self.register_modules(unet=unet, text_encoder=text_encoder, text_encoder_2=text_encoder_2)


def hollow(module: nn.Module) -> nn.Module:
    """The module with every weight of its shape but without memory: one zero, seen many times."""
    with torch.no_grad():
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                empty = torch.zeros(1).expand(weight.shape)
                part.register_parameter(name, nn.Parameter(empty, requires_grad=False))
            for name, buffer in part.named_buffers(recurse=False):
                part.register_buffer(name, torch.zeros(1).expand(buffer.shape), persistent=False)
    return module


@contextmanager
def loaded_by_diffusers(
    path: Path, parts: Mapping[str, nn.Module], family: BaseFamily
) -> Iterator[None]:
    """`parts` (unet, text_encoder, …) with the file's adapter in them, as it was before afterwards.

    Raises DiffusersRefusal.
    """
    with _quiet():
        host: Any = (_HostXL if family is BaseFamily.SDXL else _Host)(**parts)
        try:
            host.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=NAME, use_safetensors=True
            )
        except Exception as error:  # any of diffusers, peft, transformers and safetensors
            _unload(host)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DiffusersRefusal(lines[0][:300]) from error
    try:
        yield
    finally:
        _unload(host)


def measure(adapter: Adapter, parts: Mapping[str, nn.Module], *, weights: bool = False) -> Loaded:
    """The changes that lie in `parts` now, module by module, beside those that were wanted.

    `weights`: they are merged into the layers' own weights, and what those moved by is compared.
    """
    found = dict(_lora_layers(parts))
    worst = (0.0, "")
    for module in adapter.modules:
        layer = found.pop(module.key, None)
        if layer is None:
            worst = max(worst, (float("inf"), module.key))
            continue
        if weights:
            error = _moved(layer, module.delta())
        else:
            like = compare(_pair(layer), module)
            error = like.error(layer.scaling[NAME]) if like is not None else float("inf")
        worst = max(worst, (error, module.key))
    if found:  # something that nobody trained
        worst = (float("inf"), min(found))
    return Loaded(
        diffusers=version("diffusers"),
        modules=len(adapter.modules),
        worst_error=min(worst[0], 1.0),
        worst_module=worst[1],
        weights=weights,
    )


def _lora_layers(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, Any]]:
    """(canonical key, peft's layer) of every layer that was changed."""
    for component, part in parts.items():
        for name, layer in part.named_modules():
            if isinstance(layer, LoraLayer) and NAME in layer.lora_A:
                path = name if component == "unet" else TEXT_PREFIX + name.removeprefix(TEXT_PREFIX)
                yield f"{component}.{path}", layer


def _pair(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A[NAME].weight.detach(), layer.lora_B[NAME].weight.detach()


def _moved(layer: Any, wanted: Tensor) -> float:
    """How far the layer's weight moves from where it should go, when peft merges the change.

    What fp32 rounds away beside a large weight is no fault of the file.
    """
    weight = layer.get_base_layer().weight
    before = weight.detach().clone()
    layer.merge(adapter_names=[NAME])
    moved = weight.detach() - before
    layer.unmerge()
    with torch.no_grad():
        weight.copy_(before)
    distance = float((moved - wanted).norm())
    rounding = 2**-24 * float(before.norm())
    size = float(wanted.norm())
    if distance <= rounding:
        return 0.0
    return distance / size if size else float("inf")


def _unload(host: Any) -> None:
    with _quiet():
        host.unload_lora_weights()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports of diffusers and transformers, which are about whole checkpoints."""
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
