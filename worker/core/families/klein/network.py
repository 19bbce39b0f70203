"""The transformer of FLUX.2 klein and its text encoder, Qwen3.

As Flux2KleinPipeline of diffusers calls them: padding of prompts is kept and read, so that the
length belongs to what the transformer was trained with; positions are four numbers for each token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.core.families.flow import FlowSampler, is_second_order
from worker.core.families.flow_network import FlowNetwork, states_after
from worker.core.families.network import number_type
from worker.core.families.text_states import TextStates
from worker.core.words import SamplerName

LABEL = "FLUX.2 klein"


class KleinSampler(FlowSampler):
    """Draws along the flow with a shift that depends on the size of the image and on the steps."""

    tokens = 4_096  # of an image of 1024 × 1024 pixels

    def set_size(self, height: int, width: int) -> None:
        """The sides of the latents of the images that are drawn next; before `set_timesteps`."""
        self.tokens = height * width

    def set_timesteps(self, steps: int) -> None:
        """Begin new images of so many steps."""
        self.shift = math.exp(empirical_mu(self.tokens, steps))
        super().set_timesteps(steps)


class KleinNetwork(FlowNetwork):
    """Text states are three of the encoder's, side by side; latents: see PackedAutoencoder."""

    thinking = False
    pads = True

    def sampler(
        self, name: SamplerName | None, scheduler_config: Mapping[str, Any], *, prediction: str
    ) -> FlowSampler:
        """See Network; Euler is the usual one."""
        return KleinSampler(1.0, second_order=is_second_order(name, LABEL))

    def states(self, encoder: Any, ids: Tensor, mask: Tensor) -> TextStates:
        """See FlowNetwork."""
        quarter = encoder.config.num_hidden_layers // 4
        states = states_after(encoder, [quarter, 2 * quarter, 3 * quarter], ids, mask)
        return TextStates(torch.cat(states, dim=-1))

    def predict(
        self, denoiser: Any, latents: Tensor, levels: Tensor, text: TextStates, sizes: Tensor
    ) -> Tensor:
        """See Network. The sizes are not read."""
        dtype, (count, channels, height, width) = number_type(denoiser), latents.shape
        (predicted,) = denoiser(
            hidden_states=latents.flatten(2).transpose(1, 2).to(dtype),
            timestep=levels.expand(count).to(dtype),
            guidance=None,
            encoder_hidden_states=text.hidden.to(dtype),
            txt_ids=_positions(latents.device, count, 1, 1, text.hidden.shape[1]),
            img_ids=_positions(latents.device, count, height, width, 1),
            return_dict=False,
        )
        return predicted.transpose(1, 2).reshape(count, channels, height, width).float()  # type: ignore[no-any-return]


def empirical_mu(tokens: int, steps: int) -> float:
    """The logarithm of the shift for images of so many tokens.

    Black Forest Labs found it by trial (compute_empirical_mu in Flux2KleinPipeline of diffusers):
    lines for 10 and for 200 steps, and for large images the latter alone.
    """
    for_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4_300:
        return for_200
    for_10 = 8.73809524e-05 * tokens + 1.89833333
    return for_200 + (for_200 - for_10) / 190 * (steps - 200)


def _positions(device: torch.device, count: int, height: int, width: int, words: int) -> Tensor:
    """The positions of tokens (count, tokens, 4): time, row, column, word."""
    ranges = [torch.arange(size, device=device) for size in (1, height, width, words)]
    return torch.cartesian_prod(*ranges).expand(count, -1, -1)
