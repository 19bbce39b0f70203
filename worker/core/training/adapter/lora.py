"""The adapter in the base's layers: select them, inject, disable, scale, extract."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from worker.core.families.facts.stable_diffusion import B_LORA
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.names import with_text_prefix
from worker.core.lora_files.algebra import balance_pair, lora_pair
from worker.core.lora_files.canonical import MAX_RANK, LoraAdapter, LoraModule
from worker.core.safetensors_header import MAX_ADAPTER_BYTES
from worker.core.training.adapter.kinds import (
    ADAPTER_NAME,
    KIND_LABELS,
    factors_of,
    initial_values,
    peft_config,
)
from worker.core.training.config import AdapterKind, Targets, TrainConfig
from worker.core.training.errors import UnsupportedError
from worker.core.wording import size_text

FP32_BYTES = 4
EVERY_BLOCK = "all"

TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_FEED_FORWARD = ("fc1", "fc2")
_BLOCK_PATH = re.compile(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)(\.attentions\.\d+)?")


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
            if text is None or text is (site.component is not Component.DENOISER)
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
    widest = Targets(list(family.facts.options.targets)[-1])
    all_layers = len(unet_targets(unet, widest, family=family))
    if "train_text_encoder" not in family.facts.options.training:
        all_layers += sum(len(text_targets(encoder, Targets.ALL)) for encoder in text_encoders)
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
    if not targets:
        raise UnsupportedError(
            f"This base has no layers for the target modules “{config.targets}”. It may be of "
            "another family than it seems."
        )
    parts: list[tuple[Component, nn.Module, list[str]]] = [(Component.DENOISER, unet, targets)]
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


def rank_and_alpha(component: Component, config: TrainConfig) -> tuple[int, float]:
    """The rank and alpha of a component; its strength is alpha / rank.

    rsLoRA (arXiv 2312.03732) uses alpha / sqrt(rank). The root is included in alpha here, so that
    peft and every reader of the file get the same strength without knowing about it.
    """

    def stabilized(alpha: float, rank: int) -> float:
        return alpha * math.sqrt(rank) if config.rank_stabilized else alpha

    rank, alpha = config.rank, stabilized(config.alpha, config.rank)
    if component is Component.DENOISER:
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
        LoraSite(
            component,
            path if component is Component.DENOISER else with_text_prefix(path),
            layer,
            rank,
            alpha,
        )
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


def unet_targets(
    unet: nn.Module, targets: Targets, blocks: str = EVERY_BLOCK, *, family: BaseFamily
) -> list[str]:
    """Paths of the UNet's layers: attention only, whole transformers, or also convolutions.

    `blocks` is `all`, comma-separated names (`down.1` for down_blocks.1, `mid`, `up.0.1` for
    up_blocks.0.attentions.1), or for SDXL `style` or `content`. Raises UnsupportedError for a block
    that this UNet lacks, or that has nothing to train.
    """

    pattern = re.compile(family.facts.options.targets[targets])
    paths = [
        path for path, layer in unet.named_modules() if _is_layer(layer) and pattern.fullmatch(path)
    ]
    if blocks == EVERY_BLOCK:
        return paths
    existing = blocks_of(unet)
    filled = [name for name, block in existing.items() if _paths_inside(paths, block)]
    chosen: set[str] = set()
    for name in _block_names(blocks, family):
        if name not in existing:
            raise UnsupportedError(
                f"This base has no UNet block {name}. Choose from {', '.join(existing)}."
            )
        if name not in filled:
            raise UnsupportedError(
                f"The block {name} has no layers for the target modules “{targets}”. Choose from "
                f"{', '.join(filled)}."
            )
        chosen.update(_paths_inside(paths, existing[name]))
    return [path for path in paths if path in chosen]


def text_targets(encoder: nn.Module, targets: Targets) -> list[str]:
    """Paths of a text encoder's layers: attention only, or also feed-forward."""
    attention_only = targets is Targets.ATTENTION
    leaves = TEXT_ATTENTION if attention_only else (*TEXT_ATTENTION, *TEXT_FEED_FORWARD)
    return [
        path
        for path, layer in encoder.named_modules()
        if _is_layer(layer) and path.endswith(leaves)
    ]


def blocks_of(unet: nn.Module) -> dict[str, str]:
    """The path of every selectable block and attention by its short name, in order."""
    paths = [path for path, _ in unet.named_modules() if _BLOCK_PATH.fullmatch(path)]
    named = {re.sub(r"_blocks?|\.attentions", "", path): path for path in paths}
    return dict(sorted(named.items()))


def _block_names(blocks: str, family: BaseFamily) -> list[str]:
    if blocks not in B_LORA:
        return [name.strip() for name in blocks.split(",")]
    named = family.facts.options.named_blocks
    if blocks not in named:
        raise UnsupportedError(
            f"The blocks for “{blocks}” are known for SDXL only, and this base is not SDXL. Choose "
            "all blocks, or name some."
        )
    return [named[blocks]]


def _paths_inside(paths: list[str], block: str) -> list[str]:
    return [path for path in paths if path.startswith(f"{block}.")]


def _is_layer(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)
