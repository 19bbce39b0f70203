"""Encodes prompts into the text states that the denoiser of a base reads."""

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
    """The embeddings of `prompts` in the form that the family's UNet was trained with.

    SD 1 and 2 use the last hidden state after the final norm (SD 2's encoder is stored without its
    last layer), or with `clip_skip` n > 1 the n-th last state after the same norm. SDXL
    concatenates the states before the last layer of both encoders and adds the second encoder's
    pooled text. Gradients flow when the encoders' parameters require them.
    """
    ids = [
        _token_ids(tokenizer, prompts, length=max_tokens(encoder)).to(device)
        for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True)
    ]
    return encode_tokens(base, ids, clip_skip=clip_skip)


def encode_tokens(
    base: LoadedBase, token_ids: Sequence[Tensor], *, clip_skip: int = 1
) -> PromptEmbeddings:
    """The embeddings of token ids (prompts, tokens), of each text encoder its own; see
    `encode_prompts`."""
    states, pooled = [], None
    for ids, encoder in zip(token_ids, base.text_encoders, strict=True):
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
    """The final norm; in transformers 5 it is an attribute of the model itself."""
    return getattr(encoder, "text_model", encoder).final_layer_norm


def max_tokens(encoder: object) -> int:
    """The maximum number of tokens, with start and end tokens: 77 for CLIP."""
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
