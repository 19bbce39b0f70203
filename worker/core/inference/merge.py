"""Adapters merged into the weights: W = W0 + sum(s_i B_i A_i), always from the original W0.

A merged layer costs as much as the base layer, whatever the number of adapters. Nothing is ever
subtracted, so at weight zero the layers are bit-equal to the base.

The sum is computed in fp32 and rounded once. For a base in bf16, W0 must not be rounded before: its
values would lie on bf16's grid, 2^-8 of their size apart, and a small s_i B_i A_i would be rounded
away in almost every element. With W0 as it is stored, the elements lie anywhere between two grid
points, so that the right share of them changes.

The sum of a layer is one product: with the adapters stacked along the rank, B = (B_1 B_2 …) and
A = (A_1; A_2; …), it is (B diag(s)) A. What does not depend on the weights s is kept in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.core.lora_files.canonical import LoraModule
from worker.core.lora_files.compatible import adaptable_layers, layer_weight, require_fit
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import Part, part_of

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
        self._weights = {key: layer_weight(layer) for key, layer in self._layers.items()}
        self._shapes = {key: tuple(weight.shape) for key, weight in self._weights.items()}
        self._base_name = base_name
        self._read_original = read_original
        self._originals: dict[str, Tensor] = {}
        self._recipes: dict[str, Recipe] = {}
        self._plan = _Plan((), {})

    def apply(self, stack: Sequence[LoadedAdapter]) -> int:
        """Merge exactly `stack` into the weights; returns the number of layers written.

        Raises AdapterMismatchError before any weight is changed when an adapter does not fit.
        """
        names = tuple(loaded.name for loaded in stack)
        if names != self._plan.names:
            for loaded in stack:
                self.require_fit(loaded)
            self._plan = _make_plan(stack, self._layers, self._weights)
        with torch.no_grad():
            written = self._restore_other_layers()
            for (part, members), layers in self._plan.groups.items():
                weights = [stack[index].weight_in(part) for index in members]
                written += self._write_group(layers, [names[i] for i in members], weights)
        return written

    def require_fit(self, loaded: LoadedAdapter) -> None:
        """Raise AdapterMismatchError unless the adapter fits the base."""
        if loaded.name not in self._plan.names:
            require_fit(loaded.adapter, self._shapes, base_name=self._base_name)

    def _restore_other_layers(self) -> int:
        """Give all layers that no adapter of the plan changes their original weights."""
        planned = {layer.key for layers in self._plan.groups.values() for layer in layers}
        others = [key for key in self._recipes if key not in planned]
        for key in others:
            self._weights[key].copy_(self._originals[key])
            del self._recipes[key]
        self._originals = {key: kept for key, kept in self._originals.items() if key in planned}
        return len(others)

    def _write_group(
        self, layers: Sequence[PlannedLayer], names: Sequence[str], weights: Sequence[float]
    ) -> int:
        """Write the layers of a group, which are changed by the same adapters."""
        recipe = tuple((name, w) for name, w in zip(names, weights, strict=True) if w != 0)
        changed = [layer for layer in layers if self._recipes.get(layer.key, ()) != recipe]
        columns: dict[tuple[int, ...], Tensor] = {}  # s for each column of B, by the ranks
        for layer in changed:
            if not recipe:
                layer.weight.copy_(self._originals[layer.key])
                del self._recipes[layer.key]
                continue
            original = self._original(layer).to(layer.up.device)
            if layer.ranks not in columns:
                columns[layer.ranks] = expand_columns(
                    torch.tensor(weights, dtype=torch.float32), layer.ranks
                ).to(layer.up.device)
            scaled = layer.up * columns[layer.ranks]
            if layer.matrix is not None:
                torch.addmm(original.flatten(1), scaled, layer.down, out=layer.matrix)
            else:
                total = torch.addmm(original.flatten(1).float(), scaled, layer.down)
                layer.weight.copy_(total.view(layer.weight.shape))
            self._recipes[layer.key] = recipe
        return len(changed)

    def _original(self, layer: PlannedLayer) -> Tensor:
        """W0, which is kept from the first change on: on the host if it comes from a file."""
        kept = self._originals.get(layer.key)
        if kept is None:
            stored = self._read_original(layer.key)
            kept = layer.weight.clone() if stored is None else stored.view(layer.weight.shape)
            self._originals[layer.key] = kept
        return kept

    def recipes(self, component: str) -> tuple[Recipe, ...]:
        """The recipes of a component's layers now: a cache key for what they computed."""
        return tuple(
            sorted({r for key, r in self._recipes.items() if key.startswith(f"{component}.")})
        )

    def planned_in_unet(self) -> list[tuple[Part, tuple[int, ...], list[PlannedLayer]]]:
        """(part, places in the stack, layers): the layers of the UNet which these adapters change.

        They are those of the last `apply`, whatever the weights.
        """
        return [
            (part, members, list(layers))
            for (part, members), layers in self._plan.groups.items()
            if part is not Part.TEXT
        ]

    def parameters(self, component: str) -> int:
        """The number of parameters in a component's linear and convolution layers."""
        prefix = f"{component}."
        return sum(w.numel() for key, w in self._weights.items() if key.startswith(prefix))

    @property
    def originals_bytes(self) -> int:
        """The memory of the device that the kept original weights take, in bytes."""
        return sum(
            tensor.numel() * tensor.element_size()
            for key, tensor in self._originals.items()
            if tensor.device == self._weights[key].device
        )


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """A layer with the factors of all adapters that change it, in fp32 on the base's device.

    `up` (out, R), scaled, and `down` (R, in) are stacked along the rank; `ranks` are those of the
    adapters. `matrix` is the weight as (out, in) if the sum can be written there as it is.
    """

    key: str
    module: nn.Module
    weight: Tensor
    matrix: Tensor | None
    up: Tensor
    down: Tensor
    ranks: tuple[int, ...]


_Group = tuple[Part, tuple[int, ...]]
"""A part and the adapters' places in the stack: layers of a group have one recipe."""


@dataclass(frozen=True, eq=False)
class _Plan:
    """The work of merging the adapters `names`, at any weights."""

    names: tuple[str, ...]
    groups: Mapping[_Group, Sequence[PlannedLayer]]


def _make_plan(
    stack: Sequence[LoadedAdapter],
    layers: Mapping[str, nn.Module],
    weights: Mapping[str, Tensor],
) -> _Plan:
    parts: dict[str, list[tuple[int, LoraModule]]] = {}
    for index, loaded in enumerate(stack):
        for module in loaded.adapter.modules:
            parts.setdefault(module.key, []).append((index, module))
    groups: dict[_Group, list[PlannedLayer]] = {}
    for key, found in parts.items():
        group = (part_of(key), tuple(index for index, _ in found))
        factors = [module for _, module in found]
        planned = _plan_layer(key, layers[key], weights[key], factors)
        groups.setdefault(group, []).append(planned)
    return _Plan(tuple(loaded.name for loaded in stack), groups)


def _plan_layer(
    key: str, layer: nn.Module, weight: Tensor, modules: Sequence[LoraModule]
) -> PlannedLayer:
    up, down = stack_factors(modules, device=weight.device)
    is_exact = weight.dtype is torch.float32 and weight.is_contiguous()
    return PlannedLayer(
        key=key,
        module=layer,
        weight=weight,
        matrix=weight.flatten(1) if is_exact else None,
        up=up,
        down=down,
        ranks=tuple(module.rank for module in modules),
    )


def stack_factors(modules: Sequence[LoraModule], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """(up (out, R) with the scales, down (R, in)) of modules for one layer, stacked along the rank.

    The factors of a single module without a scale are not copied on their own device.
    """
    ups = [
        up if module.scale == 1 else up * module.scale
        for module in modules
        for up in (module.up.flatten(1).to(device, torch.float32),)
    ]
    downs = [module.down.flatten(1).to(device, torch.float32) for module in modules]
    if len(modules) == 1:
        return ups[0], downs[0]
    return torch.cat(ups, dim=1), torch.cat(downs)


def expand_columns(weights: Tensor, ranks: Sequence[int]) -> Tensor:
    """The weight of each column (…, R) from that of each adapter (…, adapters)."""
    return weights.repeat_interleave(torch.tensor(ranks), dim=-1)
