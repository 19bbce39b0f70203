"""The transformer of Z-Image and its text encoder, Qwen3.

As ZImagePipeline of diffusers calls them: the transformer is told the share of the image, 1 - s,
and predicts the velocity with the other sign; latents and captions are lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.core.families.family import BaseFamily
from worker.core.families.flow import FlowSampler, make_flow_sampler
from worker.core.families.flow_network import FlowNetwork, states_after
from worker.core.families.network import number_type
from worker.core.families.text_states import TextStates
from worker.core.words import SamplerName


class ZImageNetwork(FlowNetwork):
    """Text states are those before the encoder's last layer, without padding."""

    thinking = True
    pads = False

    def sampler(
        self, name: SamplerName | None, scheduler_config: Mapping[str, Any], *, prediction: str
    ) -> FlowSampler:
        """See Network; Euler is the usual one."""
        return make_flow_sampler(name, scheduler_config, label=BaseFamily.ZIMAGE.label)

    def states(self, encoder: Any, ids: Tensor, mask: Tensor) -> TextStates:
        """See FlowNetwork: those that the last layer reads, with zeros for padding."""
        (states,) = states_after(encoder, [encoder.config.num_hidden_layers - 1], ids, mask)
        return TextStates(states * mask[..., None], lengths=tuple(mask.sum(dim=1).tolist()))

    def predict(
        self, denoiser: Any, latents: Tensor, levels: Tensor, text: TextStates, sizes: Tensor
    ) -> Tensor:
        """See Network. The sizes are not read."""
        dtype, count = number_type(denoiser), len(latents)
        assert text.lengths is not None
        captions = [
            row[:length].to(dtype) for row, length in zip(text.hidden, text.lengths, strict=True)
        ]
        (predicted,) = denoiser(
            list(latents.to(dtype).unsqueeze(2)),  # (c, 1, h, w): images are videos of one frame
            ((1_000 - levels * 1_000) / 1_000).expand(count),  # rounded as the pipeline does
            captions,
            return_dict=False,
        )
        return -torch.stack(predicted).squeeze(2).float()
