"""The adapter in the base's layers: inject, disable, scale, extract."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import (
    MAX_RANK,
    Component,
    LoraAdapter,
    LoraModule,
)
from worker.core.safetensors_header import MAX_ADAPTER_BYTES
from worker.core.training.adapter.kinds import (
    ADAPTER_NAME,
    KIND_LABELS,
    balance_pair,
    factors_of,
    initial_values,
    lora_pair,
    peft_config,
)
from worker.core.training.adapter.targets import text_targets, unet_targets
from worker.core.training.config import AdapterKind, Targets, TrainConfig
from worker.core.training.errors import UnsupportedError
from worker.core.wording import size_text

TEXT_PREFIX = "text_model."
FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class LoraSite:
    """One layer of the base with an adapter: its component, canonical path and peft layer.

    Its strength is `alpha` / `rank`; rsLoRA is included in `alpha`.
    """

    component: Component
    path: str
    layer: BaseTunerLayer
    rank: int
    alpha: float

    @property
    def factors(self) -> dict[str, nn.Parameter]:
        """The trained matrices by name, in the shapes of their kind."""
        return factors_of(self.layer)

    @property
    def key(self) -> str:
        """`<component>.<path>`, unique in an adapter."""
        return f"{self.component}.{self.path}"

    def module(self, factors: Mapping[str, Tensor]) -> LoraModule:
        """A LoRA module that changes the weight exactly as these matrices do."""
        down, up = lora_pair(factors)
        if "down" not in factors:
            down, up = balance_pair(down, up)
        rank, shape = down.shape[0], self.layer.get_base_layer().weight.shape
        down = down.reshape(rank, *shape[1:])
        up = up.reshape(shape[0], rank, *(1 for _ in shape[2:]))
        return LoraModule(self.component, self.path, down, up, self.alpha * (rank / self.rank))


class Lora:
    """The adapter in training: its layers in a fixed order, and its parameters by name.

    `all_layers`: the number of layers of the base that could have an adapter.
    """

    def __init__(self, sites: list[LoraSite], all_layers: int = 0) -> None:
        self.sites = sites
        self.all_layers = all_layers

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every trained matrix as `<component>.<path>.<factor>`: down and up for a LoRA."""
        return {
            f"{site.key}.{name}": factor
            for site in self.sites
            for name, factor in site.factors.items()
        }

    def parameters(self, *, text: bool | None = None, up: bool | None = None) -> list[nn.Parameter]:
        """The trained matrices: all, or a subset.

        `text`: only those of the text encoders (True) or of the UNet (False). `up`: only a LoRA's
        up matrices (True) or all others (False); other kinds have no up matrices.
        """
        return [
            factor
            for site in self.sites
            if text is None or text is (site.component is not Component.UNET)
            for name, factor in site.factors.items()
            if up is None or up is (name == "up")
        ]

    @property
    def size(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Disable the adapter while the context lasts."""
        for site in self.sites:
            site.layer.enable_adapters(False)
        try:
            yield
        finally:
            for site in self.sites:
                site.layer.enable_adapters(True)

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        """Scale the adapter's strength by `weight` while the context lasts."""
        layers: list[Any] = [site.layer for site in self.sites]
        usual = [layer.scaling[ADAPTER_NAME] for layer in layers]
        for layer, strength in zip(layers, usual, strict=True):
            layer.scaling[ADAPTER_NAME] = strength * weight
        try:
            yield
        finally:
            for layer, strength in zip(layers, usual, strict=True):
                layer.scaling[ADAPTER_NAME] = strength

    def extract(
        self, weights: Mapping[str, Tensor] | None = None, metadata: Mapping[str, str] | None = None
    ) -> LoraAdapter:
        """A copy in canonical form: the trained weights, or others of the same names."""
        source = weights if weights is not None else self.named_parameters()
        modules = []
        for site in self.sites:
            factors = {
                name: source[f"{site.key}.{name}"].detach().to("cpu", torch.float32, copy=True)
                for name in site.factors
            }
            modules.append(site.module(factors))
        return LoraAdapter(modules=tuple(modules), metadata=dict(metadata or {}))


def inject_adapter(
    unet: nn.Module,
    text_encoders: list[Any],
    config: TrainConfig,
    *,
    generator: torch.Generator,
    family: BaseFamily,
) -> Lora:
    """Inject fresh matrices into the layers that the config targets; everything else is frozen.

    Their values depend on the generator alone and have no effect at first; they are fp32 whatever
    the base is. Raises UnsupportedError when this base does not allow such an adapter, or when it
    could not be saved.
    """
    sites = []
    all_layers = len(unet_targets(unet, Targets.ALL, family=family)) + sum(
        len(text_targets(encoder, Targets.ALL)) for encoder in text_encoders
    )
    for component, model, targets in target_layers(unet, text_encoders, config, family=family):
        sites += _inject_component(model, component, targets, config)
    _check_file_limits(sites, config.kind)
    for site in sites:
        for name, factor in site.factors.items():
            values = initial_values(config.kind, name, factor.shape, generator)
            factor.data = values.to(factor.device)
    return Lora(sites, all_layers)


def target_layers(
    unet: nn.Module, text_encoders: list[Any], config: TrainConfig, *, family: BaseFamily
) -> list[tuple[Component, nn.Module, list[str]]]:
    """Each trained component of the base, and the paths of the layers that the config targets.

    Raises UnsupportedError when this base has no such layers, or the rank exceeds all of them.
    """
    targets = unet_targets(unet, config.targets, config.blocks, family=family)
    parts: list[tuple[Component, nn.Module, list[str]]] = [(Component.UNET, unet, targets)]
    if config.train_text_encoder:
        names = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
        parts += [
            (component, encoder, text_targets(encoder, config.targets))
            for component, encoder in zip(names, text_encoders, strict=False)
        ]
    for component, model, targets in parts:
        _check_rank(model, targets, rank_and_alpha(component, config)[0])
    return parts


def remove_adapters(model: nn.Module) -> None:
    """Remove all adapters; the original layers come back."""
    layers = [
        (path, layer) for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)
    ]
    for path, layer in layers:
        model.set_submodule(path, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def canonical_path(component: Component, path: str) -> str:
    """The path in files: a text encoder's starts with `text_model.` in any transformers version."""
    if component is Component.UNET or path.startswith(TEXT_PREFIX):
        return path
    return TEXT_PREFIX + path


def rank_and_alpha(component: Component, config: TrainConfig) -> tuple[int, float]:
    """The rank and alpha of a component; its strength is alpha / rank.

    rsLoRA (arXiv 2312.03732) uses alpha / sqrt(rank). The root is included in alpha here, so that
    peft and every reader of the file get the same strength without knowing about it.
    """

    def stabilized(alpha: float, rank: int) -> float:
        return alpha * math.sqrt(rank) if config.rank_stabilized else alpha

    rank, alpha = config.rank, stabilized(config.alpha, config.rank)
    if component is Component.UNET:
        return rank, alpha
    text_rank = config.text_encoder_rank or rank
    if config.text_encoder_alpha is not None:
        return text_rank, stabilized(config.text_encoder_alpha, text_rank)
    return text_rank, alpha * text_rank / rank


def _inject_component(
    model: nn.Module, component: Component, targets: list[str], config: TrainConfig
) -> list[LoraSite]:
    rank, alpha = rank_and_alpha(component, config)
    model.requires_grad_(False)
    peft = peft_config(config.kind, rank=rank, alpha=alpha, target_modules=targets)
    inject_adapter_in_model(peft, model, adapter_name=ADAPTER_NAME)
    return [
        LoraSite(component, canonical_path(component, path), layer, rank, alpha)
        for path, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ]


def _check_rank(model: nn.Module, targets: list[str], rank: int) -> None:
    """Raise UnsupportedError for a rank above that of every weight, where it adds nothing.

    A rank above that of the narrower layers is accepted: peft, kohya and the readers do the same,
    the useless directions cost little, and the widest layers may need it.
    """
    weights = [model.get_parameter(f"{path}.weight") for path in targets]
    widest = max(min(weight.flatten(1).shape) for weight in weights)
    if rank > widest:
        raise UnsupportedError(
            f"Rank {rank} is larger than this base's widest layers ({widest}). "
            f"Choose {widest} or less."
        )


def _check_file_limits(sites: list[LoraSite], kind: AdapterKind) -> None:
    """Raise UnsupportedError, before training, when the file would be too large to read back."""
    size = 0
    for site in sites:
        # on the meta device: the shapes of the conversion without computing it
        down, up = lora_pair({name: factor.to("meta") for name, factor in site.factors.items()})
        if down.shape[0] > MAX_RANK:
            raise UnsupportedError(
                f"A {KIND_LABELS[kind]} of rank {site.rank} is saved as a LoRA, here of rank "
                f"{down.shape[0]}, above the maximum of {MAX_RANK}. Choose a lower rank."
            )
        size += (down.numel() + up.numel()) * FP32_BYTES
    if size > MAX_ADAPTER_BYTES:
        raise UnsupportedError(
            f"The file of this {KIND_LABELS[kind]} would have {size_text(size)}, above the "
            f"maximum of {size_text(MAX_ADAPTER_BYTES)}. Choose a lower rank or fewer layers."
        )
