"""The read-out that needs no training steps: whitened class means, compared by cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.core.eyes.head import WIDTH, EyesHead

SHRINKAGE = 0.1
"""Share of a round covariance in the one that whitens: there are few images for each direction."""


@torch.no_grad()
def fit_closed_form(head: EyesHead, features: Tensor, labels: Tensor) -> None:
    """Set the read-out from features, (n, 1280), and their names.

    Features are whitened by their deviation within a name, then projected to the directions in
    which the means of the names differ most (linear discriminant analysis).
    """
    center = features.mean(dim=0)
    centered = (features - center).double()
    count = labels.bincount(minlength=len(head.names)).double().clamp(min=1)
    sums = torch.zeros(len(head.names), centered.shape[1], dtype=torch.double)
    means = sums.index_add(0, labels, centered) / count[:, None]
    inner = centered - means[labels]
    covariance = inner.T @ inner / len(inner)
    level = covariance.diagonal().mean()
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    whitening = vectors * values.rsqrt()
    _, strengths, directions = torch.linalg.svd(means @ whitening, full_matrices=False)
    width = min(WIDTH, len(strengths))
    projection = (whitening @ directions[:width].T).float()
    head.project.weight.zero_()
    head.project.weight[:width] = projection.T
    head.project.bias.copy_(-(head.project.weight @ center))
    points = torch.zeros_like(head.names)
    points[:, :width] = means.float() @ projection
    empty = points.norm(dim=1) == 0
    points[empty] = torch.randn_like(points[empty])
    head.names.copy_(torch.nn.functional.normalize(points, dim=1))
