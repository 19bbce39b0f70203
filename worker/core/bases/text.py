"""Prompts as the states that a base's UNet reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.core.bases.family import BaseFamily
from worker.core.bases.load import LoadedBase


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """`hidden`: (prompts, tokens, width); `pooled`: (prompts, width) for SDXL, else None."""

    hidden: Tensor
    pooled: Tensor | None


def encode_prompts(
    base: LoadedBase, prompts: Sequence[str], *, device: torch.device | str, clip_skip: int = 1
) -> PromptEmbeddings:
    """The embeddings of `prompts` as the family's UNet was trained to read them.

    SD 1 and 2 read the last state after its norm (SD 2's encoder is stored without its last
    layer), or with a `clip_skip` above 1 the state so many layers from the end, after the same
    norm; SDXL reads the states before the last layer of both encoders side by side, and the
    second encoder's pooled text. Gradients flow when the encoders' parameters ask for them.
    """
    states, pooled = [], None
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
        ids = _token_ids(tokenizer, prompts, length=_length(encoder)).to(device)
        if base.info.family is BaseFamily.SDXL:
            output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled = getattr(output, "text_embeds", None)
        elif clip_skip > 1:
            output = encoder(ids, output_hidden_states=True)
            states.append(_final_norm(encoder)(output.hidden_states[-clip_skip]))
        else:
            states.append(encoder(ids).last_hidden_state)
    return PromptEmbeddings(torch.cat(states, dim=-1), pooled)


def _final_norm(encoder: Any) -> Any:
    """The norm after the last layer; transformers 5 has the layers right in the model."""
    return getattr(encoder, "text_model", encoder).final_layer_norm


def count_truncated(base: LoadedBase, prompt: str) -> int:
    """How many tokens at the end of `prompt` the base cannot read; 0 when all fit."""
    excess = 0
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
        length = len(tokenizer(prompt, verbose=False).input_ids)
        excess = max(excess, length - _length(encoder))
    return excess


def _length(encoder: object) -> int:
    """How many tokens an encoder reads, with its start and end tokens: 77 for CLIP."""
    return int(encoder.config.max_position_embeddings)  # type: ignore[attr-defined]


def _token_ids(tokenizer: object, prompts: Sequence[str], *, length: int) -> Tensor:
    tokens = tokenizer(  # type: ignore[operator]
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids  # type: ignore[no-any-return]
