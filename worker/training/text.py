"""Captions as the UNet sees them: encoded once when no text encoder trains, else in every step."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from worker.bases.load import LoadedBase
from worker.bases.text import PromptEmbeddings, encode_prompts

PROMPTS_ENCODED_AT_ONCE = 32


class Text(Protocol):
    """Embeddings of captions, in their order."""

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Hidden states (n, tokens, dim) and, for SDXL, pooled states (n, dim)."""


class LiveText:
    """Encodes in every step, so that gradients reach the text encoders' adapters."""

    def __init__(self, base: LoadedBase, *, device: str) -> None:
        self._base = base
        self._device = device

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Encode each different caption once and spread the result over the batch."""
        different = list(dict.fromkeys(captions))
        encoded = _encoded(self._base, different, self._device)
        return _chosen(encoded, [different.index(caption) for caption in captions])


class FrozenText:
    """Knows every caption of a run by heart; the encoders are not needed after it is made."""

    def __init__(self, base: LoadedBase, captions: Iterable[str], *, device: str) -> None:
        different = list(dict.fromkeys(captions))
        self._rows = {caption: row for row, caption in enumerate(different)}
        chunks = []
        with torch.no_grad():
            for start in range(0, len(different), PROMPTS_ENCODED_AT_ONCE):
                chunk = different[start : start + PROMPTS_ENCODED_AT_ONCE]
                chunks.append(_encoded(base, chunk, device))
        pooled = [chunk.pooled for chunk in chunks if chunk.pooled is not None]
        self._known = PromptEmbeddings(
            hidden=torch.cat([chunk.hidden for chunk in chunks]),
            pooled=torch.cat(pooled) if pooled else None,
        )

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Look the captions up."""
        return _chosen(self._known, [self._rows[caption] for caption in captions])


def _encoded(base: LoadedBase, captions: Sequence[str], device: str) -> PromptEmbeddings:
    """Embeddings in which no caption at all is zeros, if that is how the base was trained."""
    encoded = encode_prompts(base, captions, device=device)
    if not base.info.zero_empty_negative or "" not in captions:
        return encoded
    said = torch.tensor([bool(caption) for caption in captions], device=device)
    pooled = None if encoded.pooled is None else encoded.pooled * said[:, None]
    return PromptEmbeddings(hidden=encoded.hidden * said[:, None, None], pooled=pooled)


def _chosen(embeddings: PromptEmbeddings, rows: list[int]) -> PromptEmbeddings:
    index = torch.tensor(rows, device=embeddings.hidden.device)
    pooled = None if embeddings.pooled is None else embeddings.pooled[index]
    return PromptEmbeddings(hidden=embeddings.hidden[index], pooled=pooled)
