"""Checks whether an adapter fits a base, which must have all its modules in the same shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from worker.core.families.adapter_files import denoiser_of
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.layers import cross_attention_width
from worker.core.families.stable_diffusion.names import TEXT_PREFIX
from worker.core.lora_files.errors import AdapterError

BaseShapes = Mapping[str, tuple[int, ...]]


class ModuleLike(Protocol):
    """A module of an adapter, with or without its tensors in memory."""

    @property
    def key(self) -> str:
        """`<component>.<path>`."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes."""


class AdapterLike(Protocol):
    """An adapter, with or without its tensors in memory."""

    @property
    def modules(self) -> Sequence[ModuleLike]:
        """All modules."""


class AdapterMismatchError(AdapterError):
    """An adapter for a different base; the sentence names what does not fit."""


def adaptable_layers(component: str, module: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers of a loaded component by canonical path."""
    root, prefix = module, ""
    if component != Component.DENOISER:  # CLIPTextModel has no wrapper since transformers 5.6
        root, prefix = getattr(module, "text_model", module), TEXT_PREFIX
    return {
        f"{prefix}{name}": layer
        for name, layer in root.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def layer_weight(layer: nn.Module) -> Tensor:
    """The weight of a linear or convolution layer, as a plain tensor in the same memory."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def mismatched_modules(adapter: AdapterLike, shapes: BaseShapes) -> list[ModuleLike]:
    """The modules that are missing in the base or have a different shape there."""
    return [module for module in adapter.modules if shapes.get(module.key) != module.weight_shape]


def explain_mismatch(
    adapter: AdapterLike, shapes: BaseShapes, *, base_name: str = "this base"
) -> str | None:
    """None if the adapter fits the base, otherwise a sentence that says what does not fit."""
    if not (wrong := mismatched_modules(adapter, shapes)):
        return None
    (kind, family), (base_kind, base_family) = (
        denoiser_of({module.key: module.weight_shape for module in adapter.modules}),
        denoiser_of(shapes),
    )
    if kind != base_kind:
        return (
            f"This adapter was made for {family.label}; {base_name} is a base model of "
            f"{base_family.label}. Choose a base model of {family.label}, or an adapter for "
            f"{base_family.label}."
        )
    width = cross_attention_width({module.key: module.weight_shape for module in wrong})
    base_width = cross_attention_width(shapes)
    if width is not None and base_width is not None and width != base_width:
        return (
            f"This adapter was made for {_family_text(width)} with cross-attention width {width}; "
            f"{base_name} has {base_width}. Choose a base with width {width}, or an adapter for "
            f"width {base_width}."
        )
    first = wrong[0]
    share = f"{len(wrong)} of its {len(adapter.modules)} modules do not fit"
    if first.key not in shapes:
        return (
            f"This adapter was made for a different base: {base_name} has no layer {first.key} "
            f"({share})."
        )
    return (
        f"This adapter was made for a different base: its {first.key} changes weights of "
        f"{shape_text(first.weight_shape)}, but {base_name} has "
        f"{shape_text(shapes[first.key])} ({share})."
    )


def require_fit(adapter: AdapterLike, shapes: BaseShapes, *, base_name: str = "this base") -> None:
    """Raise AdapterMismatchError unless every module of the adapter fits the base."""
    if sentence := explain_mismatch(adapter, shapes, base_name=base_name):
        raise AdapterMismatchError(sentence)


def _family_text(width: int) -> str:
    """The usual name of the bases with this text width."""
    known = {family.facts.text_width: f"an {family.label} base" for family in BaseFamily}
    return known.get(width, "a base")


def shape_text(shape: tuple[int, ...]) -> str:
    """The sizes of a shape: 320 × 768."""
    return " × ".join(str(size) for size in shape)
