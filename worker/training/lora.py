"""Low-rank matrices beside the base's layers: put in, switched off, read out.

LoRA: Hu et al. 2021, arXiv 2106.09685: y = W x + alpha / rank * up (down x).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from worker.adapters.canonical import Adapter, Component, LoraModule
from worker.training.config import Targets, TrainConfig

NAME = "default"
TEXT_PREFIX = "text_model."
UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_CONVOLUTIONS = (
    ".conv1",
    ".conv2",
    ".conv_shortcut",
    ".time_emb_proj",
    ".downsamplers.0.conv",
    ".upsamplers.0.conv",
)
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_FEED_FORWARD = ("fc1", "fc2")


@dataclass(frozen=True, slots=True)
class LoraSite:
    """One layer of the base that has an adapter: its component, canonical path and peft layer."""

    component: Component
    path: str
    layer: LoraLayer

    @property
    def down(self) -> nn.Parameter:
        """(rank, in) or (rank, in, kh, kw)."""
        return self.layer.lora_A[NAME].weight  # type: ignore[no-any-return]

    @property
    def up(self) -> nn.Parameter:
        """(out, rank) or (out, rank, 1, 1)."""
        return self.layer.lora_B[NAME].weight  # type: ignore[no-any-return]


class Lora:
    """The adapter in training: its sites in a fixed order, and its parameters by name."""

    def __init__(self, sites: list[LoraSite], *, alpha: float) -> None:
        self.sites = sites
        self.alpha = alpha

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every trained matrix under `<component>.<path>.down|up`."""
        named: dict[str, nn.Parameter] = {}
        for site in self.sites:
            named[f"{site.component}.{site.path}.down"] = site.down
            named[f"{site.component}.{site.path}.up"] = site.up
        return named

    def parameters(self, *, text: bool | None = None) -> list[nn.Parameter]:
        """The trained matrices: all, or only those of the text encoders (True) or UNet (False)."""
        chosen = [
            site
            for site in self.sites
            if text is None or text is (site.component is not Component.UNET)
        ]
        return [parameter for site in chosen for parameter in (site.down, site.up)]

    @property
    def size(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The base as it was, for as long as the context lasts."""
        for site in self.sites:
            site.layer.enable_adapters(False)
        try:
            yield
        finally:
            for site in self.sites:
                site.layer.enable_adapters(True)

    def extract(
        self, weights: Mapping[str, Tensor] | None = None, metadata: Mapping[str, str] | None = None
    ) -> Adapter:
        """Give a copy in the registry's form: the trained weights, or others of the same names."""
        source = weights if weights is not None else self.named_parameters()
        modules = []
        for site in self.sites:
            key = f"{site.component}.{site.path}"
            down, up = (
                source[f"{key}.{half}"].detach().to("cpu", torch.float32, copy=True)
                for half in ("down", "up")
            )
            modules.append(LoraModule(site.component, site.path, down, up, self.alpha))
        return Adapter(modules=tuple(modules), metadata=dict(metadata or {}))


def inject(
    unet: nn.Module, text_encoders: list[Any], config: TrainConfig, *, generator: torch.Generator
) -> Lora:
    """Put fresh matrices beside the layers that the config targets; all else stays frozen.

    Down starts random, from the generator alone; up starts at zero, so the adapter starts as
    nothing. The matrices are fp32 whatever the base is.
    """
    sites = _inject_component(unet, Component.UNET, unet_targets(unet, config.targets), config)
    if config.train_text_encoder:
        names = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
        for component, encoder in zip(names, text_encoders, strict=False):
            targets = text_targets(encoder, config.targets)
            sites += _inject_component(encoder, component, targets, config)
    for site in sites:
        site.down.data = _initial_down(site.down, generator)
        site.up.data = torch.zeros_like(site.up, dtype=torch.float32)
    return Lora(sites, alpha=config.alpha)


def remove(model: nn.Module) -> None:
    """Take every adapter out again; the layers are the ones that were there before."""
    layers = [
        (path, layer) for path, layer in model.named_modules() if isinstance(layer, LoraLayer)
    ]
    for path, layer in layers:
        model.set_submodule(path, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def unet_targets(unet: nn.Module, targets: Targets) -> list[str]:
    """Paths of the UNet's layers: of its attention, its transformers, or also its convolutions."""

    def wanted(path: str) -> bool:
        if ".attentions." in path:
            return targets is not Targets.ATTENTION or path.endswith(UNET_ATTENTION)
        return targets is Targets.ALL and path.endswith(UNET_CONVOLUTIONS)

    return [path for path, layer in unet.named_modules() if _is_layer(layer) and wanted(path)]


def text_targets(encoder: nn.Module, targets: Targets) -> list[str]:
    """Paths of a text encoder's layers: of its attention, or also its feed-forward halves."""
    attention_only = targets is Targets.ATTENTION
    leaves = TEXT_ATTENTION if attention_only else (*TEXT_ATTENTION, *TEXT_FEED_FORWARD)
    return [
        path
        for path, layer in encoder.named_modules()
        if _is_layer(layer) and path.endswith(leaves)
    ]


def canonical_path(component: Component, path: str) -> str:
    """The path in files: a text encoder's begins with `text_model.` under any transformers."""
    if component is Component.UNET or path.startswith(TEXT_PREFIX):
        return path
    return TEXT_PREFIX + path


def _inject_component(
    model: nn.Module, component: Component, targets: list[str], config: TrainConfig
) -> list[LoraSite]:
    model.requires_grad_(False)
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
    inject_adapter_in_model(lora, model, adapter_name=NAME)
    return [
        LoraSite(component, canonical_path(component, path), layer)
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    ]


def _initial_down(down: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in ±1/sqrt(fan in), as peft and kohya start it (kaiming with a = sqrt 5)."""
    bound = 1 / math.sqrt(down[0].numel())
    values = torch.rand(down.shape, generator=generator) * (2 * bound) - bound
    return values.to(down.device)


def _is_layer(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)
