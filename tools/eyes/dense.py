"""The late blocks of the network as matrix products, which a CPU computes six times faster.

Where the image is 16 x 16 and smaller, nearly all time of a step goes to depthwise convolutions.
Here such a convolution is one small matrix per channel, from every place to every place, and images
lie in the last axis, so that all layers are products without a copy between them. With bf16 in
hardware a step of 128 images took 0.6 s on one core instead of 3.5 s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.core.eyes.efficientnet import Convolution, EfficientNetLite0

FROZEN_BLOCKS = 5
"""Stem and blocks that keep their ImageNet weights: edges and textures, at 16 pixels and above."""

EDGE = 16
"""Side of what the frozen blocks give for an image of 128 px."""


class DenseLate(nn.Module):
    """The trainable blocks, (40, 16 * 16, n) to pooled features (1280, n).

    The parameters are those of the network itself, so training this trains that.
    """

    def __init__(self, network: EfficientNetLite0, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.bases = [basis.to(dtype) for basis in _bases(network)]

    def forward(self, hidden: Tensor) -> Tensor:
        for block, basis in zip(self.network.block_list()[FROZEN_BLOCKS:], self.bases, strict=True):
            inner = F.relu6(self._pointwise(block.expand, hidden), inplace=True)
            inner = F.relu6(self._depthwise(block.filter, inner, basis), inplace=True)
            changed = self._pointwise(block.project, inner)
            hidden = changed + hidden if block.residual else changed
        last = F.relu6(self._pointwise(self.network.head, hidden), inplace=True)
        return last.float().mean(dim=1)

    def _pointwise(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        weight, bias = self._weights(layer)
        channels, places, images = hidden.shape
        product = torch.addmm(bias[:, None], weight, hidden.reshape(channels, places * images))
        return product.view(-1, places, images)

    def _depthwise(self, layer: nn.Module, hidden: Tensor, basis: Tensor) -> Tensor:
        kernel, bias = self._weights(layer)
        matrices = (kernel @ basis).view(len(kernel), -1, hidden.shape[1])
        return torch.baddbmm(bias[:, None, None], matrices, hidden)

    def _weights(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """(outputs, what one output adds up) and (outputs) of a folded convolution."""
        if not isinstance(layer, Convolution) or layer.conv.bias is None:
            raise TypeError("Only convolutions without a batch norm can be computed as products.")
        return layer.conv.weight.flatten(1).to(self.dtype), layer.conv.bias.to(self.dtype)


def _bases(network: EfficientNetLite0) -> list[Tensor]:
    """For each late block (kernel places, outputs * inputs): 1 where a place of the kernel connects
    an input to an output."""
    side, bases = EDGE, []
    for block in network.block_list()[FROZEN_BLOCKS:]:
        kernel, stride = block.filter.conv.kernel_size[0], block.filter.conv.stride[0]
        output = -(-side // stride)
        before = max((output - 1) * stride + kernel - side, 0) // 2
        reach = (
            torch.arange(kernel)[:, None, None] - before + stride * torch.arange(output)[:, None]
        )
        axis = (reach == torch.arange(side)).float()  # (kernel, output, input)
        both = torch.einsum("aoi,bpj->abopij", axis, axis)
        bases.append(both.reshape(kernel * kernel, output**2 * side**2))
        side = output
    return bases
