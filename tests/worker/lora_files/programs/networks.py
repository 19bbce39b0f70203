"""A network with the layer names of Stable Diffusion and tiny layers, for other programs to train.

peft and LyCORIS wrap it, write their own files, and say what weight change they mean by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.core.lora_files.reading import AdapterReading, BaseWeights, read_with_notes

BLOCK = "down_blocks.0.attentions.0"
ATTENTION = f"{BLOCK}.transformer_blocks.0"
LINEAR = {
    f"{ATTENTION}.attn1.to_q": (12, 8),
    f"{ATTENTION}.attn1.to_k": (12, 8),
    f"{ATTENTION}.attn2.to_v": (12, 16),
    f"{ATTENTION}.attn2.to_out.0": (8, 12),
    f"{ATTENTION}.ff.net.2": (8, 24),
}
CONVOLUTIONS = {
    f"{BLOCK}.proj_in": (8, 8, 1, 1),
    "down_blocks.0.resnets.0.conv1": (12, 8, 3, 3),
    "down_blocks.0.downsamplers.0.conv": (12, 12, 3, 3),
}
NORMS = {f"{ATTENTION}.norm1": 8, "down_blocks.0.resnets.0.norm1": 8}
LAYERS: Mapping[str, tuple[int, ...]] = LINEAR | CONVOLUTIONS


def tiny_unet(seed: int = 3) -> nn.Module:
    """The network; equal seeds give equal weights."""
    torch.manual_seed(seed)
    root = nn.Module()
    for path, shape in LAYERS.items():
        if len(shape) == 2:
            _put(root, path, nn.Linear(shape[1], shape[0]))
        else:
            out, given, size, _ = shape
            _put(root, path, nn.Conv2d(given, out, size, padding=size // 2))
    for path, width in NORMS.items():
        _put(root, path, nn.LayerNorm(width))
    return root


def _put(root: nn.Module, path: str, layer: nn.Module) -> None:
    *parents, name = path.split(".")
    place = root
    for parent in parents:
        if not hasattr(place, parent):
            place.add_module(parent, nn.Module())
        place = getattr(place, parent)
    place.add_module(name, layer)


def randomize(parameters: Iterable[Tensor], seed: int = 5) -> None:
    """Fill with random numbers, as if trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)


def weight_of(layer: nn.Module) -> Tensor:
    """The weight by which a layer acts, measured by what it does with single ones."""
    kind = getattr(layer, "base_layer", layer)
    with torch.no_grad():
        if isinstance(kind, nn.Linear):
            given = torch.eye(kind.in_features)
            return (layer(given) - layer(torch.zeros_like(given))).T
        size, channels = kind.kernel_size[0], kind.in_channels
        given = torch.zeros(channels, channels, 2 * size - 1, 2 * size - 1)
        given[range(channels), range(channels), size - 1, size - 1] = 1
        answer = layer(given) - layer(torch.zeros_like(given))
        near = slice(size - 1 - size // 2, size + size // 2)
        return answer[:, :, near, near].flip(2, 3).transpose(0, 1)


def effect_of(network: nn.Module) -> dict[str, Tensor]:
    """By how much every layer of a wrapped network acts otherwise than before."""
    plain = tiny_unet()
    changes = {
        path: weight_of(network.get_submodule(path)) - plain.get_submodule(path).weight.detach()
        for path in LAYERS
    }
    return {path: change for path, change in changes.items() if float(change.abs().max()) > 0}


def read(path: Path, *, network: nn.Module | None = None, **options: Any) -> AdapterReading:
    """The adapter we read, for a base of these shapes; with `network` also weights, for DoRA."""
    weights: BaseWeights | None = None
    if network is not None:
        layers = dict(network.named_modules())
        weights = lambda key: layers[key.removeprefix("unet.")].weight.detach()  # noqa: E731
    shapes = {f"unet.{layer}": shape for layer, shape in LAYERS.items()}
    return read_with_notes(path, shapes=shapes, weights=weights, **options)


def largest_error(reading: AdapterReading, meant: Mapping[str, Tensor]) -> float:
    """The largest relative error of a layer's change; the layers have to be the same."""
    found = {module.path: module.delta() for module in reading.adapter.modules}
    assert found.keys() == meant.keys()
    return max(
        float((found[path] - change).norm() / change.norm()) for path, change in meant.items()
    )
