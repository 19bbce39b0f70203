"""A moving average of a model's weights, which is sharper than the last step's."""

from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The moving average of a model's parameters; `decay` is reached after some steps."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._values = [weight.detach().clone() for weight in model.parameters()]

    @torch.no_grad()  # without it the average becomes part of the graph, and grows without end
    def update(self, step: int) -> None:
        """Take in the weights after a step; short at first, to forget the start."""
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = [weight.detach() for weight in self._model.parameters()]
        torch._foreach_lerp_(self._values, weights, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Replace the weights of a model of the same kind by the average."""
        for weight, value in zip(model.parameters(), self._values, strict=True):
            weight.copy_(value)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The averages, for a checkpoint."""
        return {"values": self._values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the averages of an interrupted stage."""
        for value, saved in zip(self._values, state["values"], strict=True):
            value.copy_(saved)
