"""Adapters beside the layers of a UNet, with weights of their own for each image of a batch.

A merged weight is the same for all images of a batch. Here each layer keeps W0, and its output gets
what the adapters change: y + B(A x · s), where s are the weights of one image for each direction
(S-LoRA, Sheng et al. 2023, arXiv 2311.03285, with dense matrices). It costs two more products per
layer and call, so that it pays only where a batch does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worker.core.families.family import Component
from worker.core.inference.batches import WantedImage
from worker.core.inference.merge import MergedWeights, PlannedLayer, expand_columns
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import Part

Stack = Sequence[LoadedAdapter]
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]

MAX_ADDED_SHARE = 0.5
"""The largest size of the stacked adapters, as a share of the parameters of the UNet's layers.

On `starter` and one CPU thread, eight images of 128 px beside each other take 0.57 to 0.78 of the
time of one after another with shares up to 0.56, and as long with 1.1.
"""
OFF: Mapping[Part, float] = dict.fromkeys(Part, 0.0)


class AdaptersBeside:
    """The adapters of several stacks, one stack for each image of a request."""

    def __init__(self, merged: MergedWeights, stacks: Sequence[Stack]) -> None:
        self.stacks = stacks
        self._merged = merged
        self._adapters: dict[str, LoadedAdapter] = {}
        for stack in stacks:
            for loaded in stack:
                self._adapters.setdefault(loaded.name, loaded)
        self._weights = [_sum_weights(stack) for stack in stacks]

    def require_fit(self) -> None:
        """Raise AdapterMismatchError unless the adapters of all stacks fit the base."""
        for loaded in self._adapters.values():
            self._merged.require_fit(loaded)

    def merge_into_text_encoders(self, index: int) -> None:
        """Merge stack `index` into the text encoders, and nothing into the UNet."""
        self._merged.apply(
            [
                replace(loaded, weight=0.0, text_encoder_weight=text)
                for name, loaded in self._adapters.items()
                for text in (self._weights[index].get(name, OFF)[Part.TEXT],)
            ]
        )

    def pays(self) -> bool:
        """True if the adapters add little to the work of the UNet's own layers."""
        self.merge_into_text_encoders(0)
        added = sum(
            layer.up.numel() + layer.down.numel()
            for _, _, layers in self._merged.planned_in_unet()
            for layer in layers
        )
        return added <= MAX_ADDED_SHARE * self._merged.parameters(Component.DENOISER)

    @contextmanager
    def on_images(self, first: int, part: Sequence[WantedImage]) -> Iterator[None]:
        """Change the UNet's outputs while this lasts, for a batch of these images.

        Image number `first` has stack `first`. With guidance the rows of a batch are those of all
        images twice. No adapter may be merged into the UNet.
        """
        handles = []
        repeats = 1 if part[0].conditioning.negative is None else 2
        weights = self._weights[first : first + len(part)]
        names = list(self._adapters)
        try:
            for unet_part, members, layers in self._merged.planned_in_unet():
                rows = [
                    [of.get(names[place], OFF)[unet_part] for place in members] for of in weights
                ]
                by_adapter = torch.tensor(rows, dtype=torch.float32).repeat(repeats, 1)
                columns: dict[tuple[int, ...], Tensor] = {}
                for layer in layers:
                    if layer.ranks not in columns:
                        expanded = expand_columns(by_adapter, layer.ranks)
                        columns[layer.ranks] = expanded.to(layer.weight)
                    hook = _make_hook(layer, columns[layer.ranks])
                    handles.append(layer.module.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _sum_weights(stack: Stack) -> Mapping[str, Mapping[Part, float]]:
    """The weight of each adapter in each part; those of equal names add up."""
    weights: dict[str, Mapping[Part, float]] = {}
    for loaded in stack:
        before = weights.get(loaded.name, OFF)
        weights[loaded.name] = {part: before[part] + loaded.weight_in(part) for part in Part}
    return weights


def _make_hook(layer: PlannedLayer, columns: Tensor) -> Hook:
    """The change of one layer; `columns` (rows, R) are the weights of each row of the batch."""
    up, down = layer.up.to(columns.dtype), layer.down.to(columns.dtype)
    if isinstance(layer.module, nn.Conv2d):
        return _make_conv_hook(layer.module, up, down, columns)
    across = up.T

    def change(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen = F.linear(inputs[0], down)  # (rows, …, R)
        scales = columns.view(len(columns), *(1,) * (seen.dim() - 2), -1)
        changed = torch.addmm(output.flatten(0, -2), (seen * scales).flatten(0, -2), across)
        return changed.view(output.shape)

    return change


def _make_conv_hook(conv: nn.Conv2d, up: Tensor, down: Tensor, columns: Tensor) -> Hook:
    kernels = down.view(len(down), *conv.weight.shape[1:])
    across, scales = up[:, :, None, None], columns[:, :, None, None]

    def change(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen = F.conv2d(inputs[0], kernels, None, conv.stride, conv.padding, conv.dilation)
        return output + F.conv2d(seen * scales, across)

    return change
