"""Adapters merged into the weights: W = W0 + sum(s_i B_i A_i), always from the original W0.

A merged layer costs as much as the base layer, whatever the number of adapters. Nothing is ever
subtracted, so at weight zero the layers are bit-equal to the base.

The sum is computed in fp32 and rounded once. For a base in bf16, W0 must not be rounded before: its
values would lie on bf16's grid, 2^-8 of their size apart, and a small s_i B_i A_i would be rounded
away in almost every element. With W0 as it is stored, the elements lie anywhere between two grid
points, so that the right share of them changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from worker.core.lora_files.canonical import LoraModule
from worker.core.lora_files.compatible import adaptable_layers, require_fit
from worker.core.lora_files.loaded import LoadedAdapter

Recipe = tuple[tuple[str, float], ...]
"""(adapter name, weight) of every adapter merged into a layer; empty for the base."""


class MergedWeights:
    """The layers of a base with the currently merged adapters.

    `read_original` gives the exact W0 of a layer by its key, if the weight in memory is a rounded
    copy; else None.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        base_name: str = "this base",
        read_original: Callable[[str], Tensor | None] = lambda _: None,
    ) -> None:
        self._layers: dict[str, nn.Module] = {
            f"{component}.{path}": layer
            for component, module in modules.items()
            for path, layer in adaptable_layers(component, module).items()
        }
        self._shapes = {
            key: tuple(_layer_weight(layer).shape) for key, layer in self._layers.items()
        }
        self._base_name = base_name
        self._read_original = read_original
        self._originals: dict[str, Tensor] = {}
        self._recipes: dict[str, Recipe] = {}
        self._factors: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        self._checked: set[str] = set()

    def apply(self, stack: Sequence[LoadedAdapter]) -> int:
        """Merge exactly `stack` into the weights; returns the number of layers written.

        Raises AdapterMismatchError before any weight is changed when an adapter does not fit.
        """
        for loaded in stack:
            if loaded.name not in self._checked:
                require_fit(loaded.adapter, self._shapes, base_name=self._base_name)
        self._checked = {loaded.name for loaded in stack}
        targets = _group_by_layer(stack)
        changed = [
            key
            for key in self._recipes.keys() | targets.keys()
            if _nonzero_weights(targets.get(key, [])) != self._recipes.get(key, ())
        ]
        with torch.no_grad():
            for key in changed:
                self._write_layer(key, targets.get(key, []))
        self._free_unused(stack, targets)
        return len(changed)

    def recipes(self, component: str) -> tuple[Recipe, ...]:
        """The recipes of a component's layers now: a cache key for what they computed."""
        return tuple(
            sorted({r for key, r in self._recipes.items() if key.startswith(f"{component}.")})
        )

    @property
    def originals_bytes(self) -> int:
        """The memory of the original weights that are kept, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._originals.values())

    def _write_layer(self, key: str, parts: Sequence[tuple[LoadedAdapter, LoraModule]]) -> None:
        weight = _layer_weight(self._layers[key])
        recipe = _nonzero_weights(parts)
        if key not in self._originals:
            stored = self._read_original(key)
            kept = weight.detach().clone() if stored is None else stored.view(weight.shape)
            self._originals[key] = kept
        original = self._originals[key]
        if not recipe:
            weight.copy_(original)
            self._recipes.pop(key, None)
            return
        exact = weight.dtype is torch.float32 and weight.is_contiguous()
        start = original.flatten(1).float()
        total = weight.data.view(start.shape) if exact else torch.empty_like(start)
        for loaded, module in parts:
            if (factor := loaded.weight_in(module.component) * module.scale) != 0:
                up, down = self._factors_of(loaded, module, weight.device)
                torch.addmm(start, up, down, alpha=factor, out=total)
                start = total
        if start is not total:  # every alpha is 0
            total.copy_(start)
        if not exact:
            weight.copy_(total.view(weight.shape))
        self._recipes[key] = recipe

    def _factors_of(
        self, loaded: LoadedAdapter, module: LoraModule, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """(up, down) as matrices on the base's device, cached while the adapter is in the stack."""
        key = (loaded.name, module.key)
        if key not in self._factors:
            self._factors[key] = (
                module.up.flatten(1).to(device, torch.float32),
                module.down.flatten(1).to(device, torch.float32),
            )
        return self._factors[key]

    def _free_unused(self, stack: Sequence[LoadedAdapter], targets: Mapping[str, object]) -> None:
        """Free the originals of unchanged layers and the factors of removed adapters."""
        names = {loaded.name for loaded in stack}
        self._factors = {key: pair for key, pair in self._factors.items() if key[0] in names}
        self._originals = {key: kept for key, kept in self._originals.items() if key in targets}


def _group_by_layer(
    stack: Sequence[LoadedAdapter],
) -> dict[str, list[tuple[LoadedAdapter, LoraModule]]]:
    targets: dict[str, list[tuple[LoadedAdapter, LoraModule]]] = {}
    for loaded in stack:
        for module in loaded.adapter.modules:
            targets.setdefault(module.key, []).append((loaded, module))
    return targets


def _nonzero_weights(parts: Sequence[tuple[LoadedAdapter, LoraModule]]) -> Recipe:
    weights = ((loaded.name, loaded.weight_in(module.component)) for loaded, module in parts)
    return tuple((name, weight) for name, weight in weights if weight != 0)


def _layer_weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
