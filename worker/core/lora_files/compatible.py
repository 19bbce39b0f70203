"""Whether an adapter fits a base: every module must exist there with the same shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from torch import nn

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import AdapterError, Component

if TYPE_CHECKING:
    from worker.core.bases.load import LoadedBase

BaseShapes = Mapping[str, tuple[int, ...]]
TEXT_PREFIX = "text_model."


class Changed(Protocol):
    """A module of an adapter, read or only planned: which weight it changes."""

    @property
    def key(self) -> str:
        """`<component>.<path>`."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the base's weight."""


class Changes(Protocol):
    """An adapter, read or only planned."""

    @property
    def modules(self) -> Sequence[Changed]:
        """All modules."""


class AdapterMismatchError(AdapterError):
    """An adapter made for another base; the sentence names what does not fit."""


def layers(component: str, module: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers of a loaded component by canonical path."""
    root, prefix = module, ""
    if component != Component.UNET:  # CLIPTextModel lost its wrapper in transformers 5.6
        root, prefix = getattr(module, "text_model", module), TEXT_PREFIX
    return {
        f"{prefix}{name}": layer
        for name, layer in root.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def base_shapes(base: LoadedBase) -> dict[str, tuple[int, ...]]:
    """The weight shape of every layer that an adapter can change, by `<component>.<path>`."""
    return {
        f"{component}.{path}": tuple(layer.weight.shape)  # type: ignore[arg-type]
        for component, module in base.adaptable().items()
        for path, layer in layers(component, module).items()
    }


def misfits(adapter: Changes, shapes: BaseShapes) -> list[Changed]:
    """The modules that the base does not have, or has with another shape."""
    return [module for module in adapter.modules if shapes.get(module.key) != module.weight_shape]


def compatible(adapter: Changes, shapes: BaseShapes, *, base_name: str = "this base") -> str | None:
    """None when the adapter fits the base; otherwise the sentence that says what does not fit."""
    if not (wrong := misfits(adapter, shapes)):
        return None
    made_for = cross_attention_width({module.key: module.weight_shape for module in wrong})
    has = cross_attention_width(shapes)
    if made_for is not None and has is not None and made_for != has:
        return (
            f"This adapter was made for {_family(made_for)} with cross-attention width {made_for}; "
            f"{base_name} has {has}. Choose a base with {made_for}, or an adapter made for {has}."
        )
    first = wrong[0]
    share = f"{len(wrong)} of its {len(adapter.modules)} modules do not fit"
    if first.key not in shapes:
        return (
            f"This adapter was made for another base: {base_name} has no layer {first.key} "
            f"({share})."
        )
    return (
        f"This adapter was made for another base: its {first.key} is for weights of "
        f"{_by(first.weight_shape)}, {base_name} has {_by(shapes[first.key])} ({share})."
    )


def require_fit(adapter: Changes, shapes: BaseShapes, *, base_name: str = "this base") -> None:
    """Raise AdapterMismatchError unless every module of the adapter fits the base."""
    if sentence := compatible(adapter, shapes, base_name=base_name):
        raise AdapterMismatchError(sentence)


def cross_attention_width(shapes: BaseShapes) -> int | None:
    """The width of the text states that the UNet layers in `shapes` read, or None."""
    for key, shape in shapes.items():
        if key.startswith("unet.") and key.endswith(("attn2.to_k", "attn2.to_v")):
            return shape[1]
    return None


def _family(width: int) -> str:
    """What people call the bases whose text states are this wide."""
    known = {family.facts.text_width: f"an {family.label} base" for family in BaseFamily}
    return known.get(width, "a base")


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
