"""Captions as the UNet sees them: encoded once when no text encoder trains, else in every step."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from worker.bases.load import LoadedBase
from worker.bases.text import PromptEmbeddings, encode_prompts

PROMPTS_ENCODED_AT_ONCE = 32
PROMPTS_REMEMBERED = 256


class Text(Protocol):
    """Embeddings of captions, in their order."""

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Hidden states (n, tokens, dim) and, for SDXL, pooled states (n, dim)."""


class LiveText:
    """Encodes in every step, so that gradients reach the text encoders' adapters."""

    def __init__(self, base: LoadedBase, *, device: str, clip_skip: int = 1) -> None:
        self._base = base
        self._device = device
        self._clip_skip = clip_skip

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Encode each different caption once and spread the result over the batch."""
        different = list(dict.fromkeys(captions))
        encoded = _encoded(self._base, different, self._device, self._clip_skip)
        return _chosen(encoded, [different.index(caption) for caption in captions])


class FrozenText:
    """Knows every caption of a run by heart; the encoders are not needed after it is made."""

    def __init__(
        self, base: LoadedBase, captions: Iterable[str], *, device: str, clip_skip: int = 1
    ) -> None:
        different = list(dict.fromkeys(captions))
        self._rows = {caption: row for row, caption in enumerate(different)}
        chunks = []
        with torch.no_grad():
            for start in range(0, len(different), PROMPTS_ENCODED_AT_ONCE):
                chunk = different[start : start + PROMPTS_ENCODED_AT_ONCE]
                chunks.append(_encoded(base, chunk, device, clip_skip))
        pooled = [chunk.pooled for chunk in chunks if chunk.pooled is not None]
        self._known = PromptEmbeddings(
            hidden=torch.cat([chunk.hidden for chunk in chunks]),
            pooled=torch.cat(pooled) if pooled else None,
        )

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Look the captions up."""
        return _chosen(self._known, [self._rows[caption] for caption in captions])


class RememberedText:
    """Encodes a caption when it first comes and remembers the newest: for shuffled tags, of which
    nobody can know all orders."""

    def __init__(self, base: LoadedBase, *, device: str, clip_skip: int = 1) -> None:
        self._base = base
        self._device = device
        self._clip_skip = clip_skip
        self._known: OrderedDict[str, PromptEmbeddings] = OrderedDict()

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Each caption's states, encoded alone: the last bits depend on nothing else."""
        found = [self._one(caption) for caption in captions]
        pooled = [one.pooled for one in found if one.pooled is not None]
        return PromptEmbeddings(
            hidden=torch.cat([one.hidden for one in found]),
            pooled=torch.cat(pooled) if pooled else None,
        )

    def _one(self, caption: str) -> PromptEmbeddings:
        if caption not in self._known:
            encoded = _encoded(self._base, [caption], self._device, self._clip_skip)
            self._known[caption] = encoded
            if len(self._known) > PROMPTS_REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(caption)
        return self._known[caption]


def _encoded(
    base: LoadedBase, captions: Sequence[str], device: str, clip_skip: int
) -> PromptEmbeddings:
    """Embeddings in which no caption at all is zeros, if that is how the base was trained."""
    encoded = encode_prompts(base, captions, device=device, clip_skip=clip_skip)
    if not base.info.zero_empty_negative or "" not in captions:
        return encoded
    said = torch.tensor([bool(caption) for caption in captions], device=device)
    pooled = None if encoded.pooled is None else encoded.pooled * said[:, None]
    return PromptEmbeddings(hidden=encoded.hidden * said[:, None, None], pooled=pooled)


def _chosen(embeddings: PromptEmbeddings, rows: list[int]) -> PromptEmbeddings:
    index = torch.tensor(rows, device=embeddings.hidden.device)
    pooled = None if embeddings.pooled is None else embeddings.pooled[index]
    return PromptEmbeddings(hidden=embeddings.hidden[index], pooled=pooled)
