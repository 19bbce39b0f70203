"""The read-out of the embedded eyes: features to embeddings, and a point for every name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.core.eyes.efficientnet import FEATURES

WIDTH = 384
"""Dimensions of an embedding."""


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
