"""What a denoiser reads of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class TextStates:
    """The states of prompts as the text encoders of a family give them.

    `hidden`: (prompts, tokens, width); `pooled`: (prompts, width) for SDXL, else None; `lengths`:
    the number of tokens of each prompt where a family does not read padding, else None.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> TextStates:
        """The states with both tensors changed, of as many prompts."""
        pooled = None if self.pooled is None else change(self.pooled)
        return TextStates(change(self.hidden), pooled, self.lengths)

    def select(self, rows: Sequence[int]) -> TextStates:
        """The states of these prompts, in this order."""
        index = torch.tensor(rows, device=self.hidden.device)
        pooled = None if self.pooled is None else self.pooled[index]
        if self.lengths is None:
            return TextStates(self.hidden[index], pooled)
        lengths = tuple(self.lengths[row] for row in rows)
        return TextStates(self.hidden[index, : max(lengths)], pooled, lengths)

    @staticmethod
    def concat(parts: Sequence[TextStates]) -> TextStates:
        """The prompts of all parts, one after another; shorter ones are padded with zeros."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        lengths = [one for part in parts for one in part.lengths or ()]
        states = [part.hidden for part in parts]
        if lengths:
            states = [pad(part, (0, 0, 0, max(lengths) - part.shape[1])) for part in states]
        return TextStates(
            torch.cat(states), torch.cat(pooled) if pooled else None, tuple(lengths) or None
        )
