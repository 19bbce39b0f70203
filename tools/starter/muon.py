"""Muon: an optimizer with momentum whose matrices are made orthogonal before each step.

Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. On the autoencoder it needs about half of Adam's steps.
`torch.optim.Muon` takes matrices only; here a convolution is a matrix of (out, in * k * k).
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """An approximation of the nearest half-orthogonal matrix, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon:
    """An optimizer for weights of two or more dimensions; `rate` may be changed between steps."""

    def __init__(
        self, weights: Iterable[Parameter], *, rate: float, momentum: float = 0.95
    ) -> None:
        self.weights = list(weights)
        self.rate, self.momentum = rate, momentum
        self._moving = [torch.zeros_like(weight) for weight in self.weights]

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient, then clear the gradients."""
        for weight, moving in zip(self.weights, self._moving, strict=True):
            if weight.grad is None:
                continue
            moving.lerp_(weight.grad, 1 - self.momentum)
            ahead = weight.grad.lerp(moving, self.momentum)  # Nesterov
            flat = orthogonalize(ahead.flatten(1))
            scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
            weight.add_(flat.view_as(weight), alpha=-self.rate * scale)
            weight.grad = None

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The momenta, for a checkpoint."""
        return {"moving": self._moving}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Take over the momenta of an interrupted training."""
        for moving, saved in zip(self._moving, state["moving"], strict=True):
            moving.copy_(saved)
