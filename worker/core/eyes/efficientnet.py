"""The network of the embedded eyes: EfficientNet-Lite0, and a read-out of its features.

Tan and Le, 2019, "EfficientNet", arXiv:1905.11946; the Lite variants of the TensorFlow authors have
ReLU6 for swish and no squeeze-and-excitation. Each convolution keeps TensorFlow's "same" padding,
which pads right and bottom first, so that the published ImageNet weights fit.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 1280
"""Width of the pooled features."""

NORM_EPSILON = 1e-3
WIDTH = 384
"""Dimensions of an embedding."""


class Stage(NamedTuple):
    """Blocks that give images of the same size and width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """Images as (n, 3, height, width) in [-1, 1] to pooled features, (n, 1280); 3.4 M parameters.

    With `normalized` each convolution is followed by a batch norm, as for training; without, the
    norms are part of the convolutions (`folded`), which is how the weights are stored.
    """

    def __init__(self, *, normalized: bool = False) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_WIDTH, kernel=3, stride=2, normalized=normalized)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for stage in STAGES:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                self.blocks.append(Block(width, stage, stride, normalized=normalized))
                width = stage.width
        self.head = Convolution(width, FEATURES, kernel=1, normalized=normalized)

    def block_list(self) -> list[Block]:
        """The 16 blocks, from the largest images to the smallest."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images)
        for block in self.blocks:
            hidden = block(hidden)
        pooled: Tensor = self.head(hidden).mean(dim=(2, 3))
        return pooled


class Block(nn.Module):
    """A mobile inverted bottleneck: expand, filter each channel, project; added to its input where
    the shapes allow."""

    def __init__(self, width: int, stage: Stage, stride: int, *, normalized: bool) -> None:
        super().__init__()
        inner = width * stage.expansion
        self.expand = (
            Convolution(width, inner, kernel=1, normalized=normalized)
            if stage.expansion > 1
            else nn.Identity()
        )
        self.filter = Convolution(
            inner, inner, kernel=stage.kernel, stride=stride, groups=inner, normalized=normalized
        )
        self.project = Convolution(
            inner, stage.width, kernel=1, active=False, normalized=normalized
        )
        self.residual = stride == 1 and width == stage.width

    def forward(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.project(self.filter(self.expand(hidden)))
        return changed + hidden if self.residual else changed


class Convolution(nn.Module):
    """A convolution with "same" padding, then a batch norm or its own bias, then ReLU6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        self.padded = stride > 1
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            padding=0 if self.padded else kernel // 2,
            groups=groups,
            bias=not normalized,
        )
        self.norm = nn.BatchNorm2d(outputs, eps=NORM_EPSILON) if normalized else nn.Identity()
        self.active = active

    def forward(self, hidden: Tensor) -> Tensor:
        if self.padded:
            hidden = F.pad(hidden, self._padding(hidden))
        hidden = self.norm(self.conv(hidden))
        return F.relu6(hidden) if self.active else hidden

    def _padding(self, hidden: Tensor) -> tuple[int, int, int, int]:
        """Left, right, top, bottom: TensorFlow gives the odd pixel to the right and the bottom."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        pads = []
        for side in (hidden.shape[3], hidden.shape[2]):
            missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [missing // 2, missing - missing // 2]
        return pads[0], pads[1], pads[2], pads[3]


class EyesHead(nn.Module):
    """A linear map to embeddings of unit length, and one unit vector for each name."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.project = nn.Linear(FEATURES, WIDTH)
        self.names = nn.Parameter(torch.randn(names, WIDTH))

    def embed(self, features: Tensor) -> Tensor:
        """(n, 1280) to (n, 384), of unit length."""
        return F.normalize(self.project(features), dim=1)

    def name_points(self) -> Tensor:
        """The names as embeddings, (names, 384), of unit length."""
        return F.normalize(self.names, dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Cosine of each image to each name, (n, names)."""
        return self.embed(features) @ self.name_points().T
