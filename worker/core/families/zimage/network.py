"""The transformer of Z-Image and its text encoder, Qwen3.

As ZImagePipeline of diffusers calls them: the transformer is told the share of the image, 1 - s,
and predicts the velocity with the other sign; latents and captions are lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from worker.core.families.family import BaseFamily
from worker.core.families.flow import FlowSampler, make_flow_sampler
from worker.core.families.flow_network import FlowNetwork, fit_in_template, states_after
from worker.core.families.network import number_type
from worker.core.families.text_states import TextStates
from worker.core.words import SamplerName


class ZImageNetwork(FlowNetwork):
    """Text states are those before the encoder's last layer, without padding."""

    thinking = True

    def sampler(
        self, name: SamplerName | None, scheduler_config: Mapping[str, Any], *, prediction: str
    ) -> FlowSampler:
        """See Network; Euler is the usual one."""
        return make_flow_sampler(name, scheduler_config, label=BaseFamily.ZIMAGE.label)

    def encode(
        self,
        encoders: Sequence[Any],
        tokenizers: Sequence[Any],
        prompts: Sequence[str],
        *,
        device: torch.device | str,
        clip_skip: int = 1,
    ) -> TextStates:
        """See Network. Raises FamilyError for a tokenizer without a chat template."""
        (tokenizer,) = tokenizers
        fitted = (fit_in_template(tokenizer, one, thinking=self.thinking) for one in prompts)
        rows = [torch.tensor(ids, device=device) for ids, _ in fitted]
        lengths = tuple(len(row) for row in rows)
        ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        mask = (
            torch.arange(max(lengths), device=device)
            < torch.tensor(lengths, device=device)[:, None]
        )
        return TextStates(_encode(encoders[0], ids, mask), lengths=lengths)

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


def _encode(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The states (prompts, tokens, width) that the last layer reads, with zeros for padding."""
    (states,) = states_after(encoder, [encoder.config.num_hidden_layers - 1], ids, mask)
    return states * mask[..., None]
