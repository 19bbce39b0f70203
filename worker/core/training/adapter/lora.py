"""Low-rank matrices beside the base's layers: put in, switched off, weakened, read out."""

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
    MAX_FILE_BYTES,
    MAX_RANK,
    Adapter,
    Component,
    LoraModule,
)
from worker.core.training.adapter.kinds import (
    NAME,
    TITLES,
    as_lora,
    balanced,
    factors_of,
    peft_config,
    start,
)
from worker.core.training.adapter.targets import text_targets, unet_targets
from worker.core.training.config import AdapterKind, TrainConfig
from worker.core.training.errors import UnsupportedError

TEXT_PREFIX = "text_model."
FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class LoraSite:
    """One layer of the base that has an adapter: its component, canonical path and peft layer.

    It works at `alpha` / `rank`; rsLoRA is in `alpha` already.
    """

    component: Component
    path: str
    layer: BaseTunerLayer
    rank: int
    alpha: float

    @property
    def factors(self) -> dict[str, nn.Parameter]:
        """The trained matrices, under the names and of the shapes of their kind."""
        return factors_of(self.layer)

    @property
    def key(self) -> str:
        """`<component>.<path>`, unique in an adapter."""
        return f"{self.component}.{self.path}"

    def module(self, factors: Mapping[str, Tensor]) -> LoraModule:
        """The LoRA that changes the weight exactly as these matrices do."""
        down, up = as_lora(factors)
        if "down" not in factors:
            down, up = balanced(down, up)
        rank, shape = down.shape[0], self.layer.get_base_layer().weight.shape
        down = down.reshape(rank, *shape[1:])
        up = up.reshape(shape[0], rank, *(1 for _ in shape[2:]))
        return LoraModule(self.component, self.path, down, up, self.alpha * (rank / self.rank))


class Lora:
    """The adapter in training: its sites in a fixed order, and its parameters by name."""

    def __init__(self, sites: list[LoraSite]) -> None:
        self.sites = sites

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every trained matrix under `<component>.<path>.<factor>`: down and up for a LoRA."""
        return {
            f"{site.key}.{name}": factor
            for site in self.sites
            for name, factor in site.factors.items()
        }

    def parameters(self, *, text: bool | None = None, up: bool | None = None) -> list[nn.Parameter]:
        """The trained matrices: all, or some.

        `text`: only those of the text encoders (True) or of the UNet (False). `up`: only a LoRA's
        up matrices (True) or all others (False); the other kinds have no up matrices.
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

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        """The adapter `weight` times as strong, for as long as the context lasts."""
        layers: list[Any] = [site.layer for site in self.sites]
        usual = [layer.scaling[NAME] for layer in layers]
        for layer, strength in zip(layers, usual, strict=True):
            layer.scaling[NAME] = strength * weight
        try:
            yield
        finally:
            for layer, strength in zip(layers, usual, strict=True):
                layer.scaling[NAME] = strength

    def extract(
        self, weights: Mapping[str, Tensor] | None = None, metadata: Mapping[str, str] | None = None
    ) -> Adapter:
        """Give a copy in the registry's form: the trained weights, or others of the same names."""
        source = weights if weights is not None else self.named_parameters()
        modules = []
        for site in self.sites:
            factors = {
                name: source[f"{site.key}.{name}"].detach().to("cpu", torch.float32, copy=True)
                for name in site.factors
            }
            modules.append(site.module(factors))
        return Adapter(modules=tuple(modules), metadata=dict(metadata or {}))


def inject(
    unet: nn.Module,
    text_encoders: list[Any],
    config: TrainConfig,
    *,
    generator: torch.Generator,
    family: BaseFamily,
) -> Lora:
    """Put fresh matrices beside the layers that the config targets; all else stays frozen.

    They start from the generator alone, and so that the adapter starts as nothing; they are fp32
    whatever the base is. Raises UnsupportedError when this base cannot have such an adapter, or
    the registry could not keep it.
    """
    sites = []
    for component, model, targets in layers_of(unet, text_encoders, config, family=family):
        sites += _inject_component(model, component, targets, config)
    _check_can_be_kept(sites, config.kind)
    for site in sites:
        for name, factor in site.factors.items():
            values = start(config.kind, name, factor.shape, generator)
            factor.data = values.to(factor.device)
    return Lora(sites)


def layers_of(
    unet: nn.Module, text_encoders: list[Any], config: TrainConfig, *, family: BaseFamily
) -> list[tuple[Component, nn.Module, list[str]]]:
    """Each part of the base that trains, and the paths of its layers that the config targets.

    Raises UnsupportedError when this base has no such layers, or none as wide as the rank.
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


def remove(model: nn.Module) -> None:
    """Take every adapter out again; the layers are the ones that were there before."""
    layers = [
        (path, layer) for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)
    ]
    for path, layer in layers:
        model.set_submodule(path, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def canonical_path(component: Component, path: str) -> str:
    """The path in files: a text encoder's begins with `text_model.` under any transformers."""
    if component is Component.UNET or path.startswith(TEXT_PREFIX):
        return path
    return TEXT_PREFIX + path


def rank_and_alpha(component: Component, config: TrainConfig) -> tuple[int, float]:
    """The one rank and alpha of a component; it works at alpha / rank.

    rsLoRA (arXiv 2312.03732) works at alpha / sqrt(rank). Its root goes into alpha here, so that
    peft, and every reader of the file, comes to the same strength without knowing of it.
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
    inject_adapter_in_model(peft, model, adapter_name=NAME)
    return [
        LoraSite(component, canonical_path(component, path), layer, rank, alpha)
        for path, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ]


def _check_rank(model: nn.Module, targets: list[str], rank: int) -> None:
    """Refuse a rank that is above that of every weight, where the last matrices add nothing.

    A rank above the narrower layers' is let through: all of peft, kohya and the readers do so,
    the few useless directions cost little, and a base's widest layers may well want it.
    """
    weights = [model.get_parameter(f"{path}.weight") for path in targets]
    widest = max(min(weight.flatten(1).shape) for weight in weights)
    if rank > widest:
        raise UnsupportedError(
            f"A rank of {rank} is more than this base can use: its widest layers have {widest}. "
            f"Choose {widest} or less."
        )


def _check_can_be_kept(sites: list[LoraSite], kind: AdapterKind) -> None:
    """Refuse, before a step is taken, what would be too large to be read back from its file."""
    size = 0
    for site in sites:
        # on the meta device: the shapes of the very conversion, without a number
        down, up = as_lora({name: factor.to("meta") for name, factor in site.factors.items()})
        if down.shape[0] > MAX_RANK:
            raise UnsupportedError(
                f"A {TITLES[kind]} of rank {site.rank} is kept as the LoRA that does the same, "
                f"here of rank {down.shape[0]}; {MAX_RANK} is the most. Choose a lower rank."
            )
        size += (down.numel() + up.numel()) * FP32_BYTES
    if size > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"The file of this {TITLES[kind]} would have {size / 1024**3:.1f} GiB; "
            f"{MAX_FILE_BYTES // 1024**3} are the most. Choose a lower rank or fewer layers."
        )
