"""Encodes prompts with weights on words, and prompts that are longer than the text encoder reads.

A weight moves the state of each token of a word along the line from the state that the empty prompt
has in its place: 0 is that state, 2 is twice as far from it. So ComfyUI does it; A1111 multiplies
the states and restores their mean (decision 13 says why not here). A long prompt is encoded in
chunks, whose states follow one another, as in A1111; the pooled text of SDXL is that of the first.
A family without weights reads the prompt as it is, and one chunk of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from worker.core.bases.load import LoadedBase, encode_prompts
from worker.core.families.networks import network_of
from worker.core.families.stable_diffusion.network import UNetNetwork, max_tokens
from worker.core.families.text_states import TextStates
from worker.core.inference.prompt_syntax import Fragment, ParsedPrompt

MAX_CHUNKS = 8
"""600 tokens of CLIP: English text of the most characters that a prompt may have fits."""

REACH = 20
"""Tokens before the end of a chunk in which it may end after a comma or a word, as in A1111."""

CUTS = ",.;:!?"


@dataclass(frozen=True)
class Chunk:
    """Tokens that are encoded together, without those that the tokenizer adds."""

    ids: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True)
class ChunkedPrompt:
    """The chunks of a prompt for one text encoder, and the end of it that they leave out."""

    chunks: Sequence[Chunk]
    unread: str

    @property
    def is_plain(self) -> bool:
        """True for one chunk in which no word has a weight."""
        return len(self.chunks) == 1 and all(weight == 1 for weight in self.chunks[0].weights)


def encode_prompt(
    base: LoadedBase, prompt: ParsedPrompt, *, device: torch.device | str, clip_skip: int = 1
) -> TextStates:
    """The embeddings of a prompt: (1, chunks × tokens, width).

    A prompt without weights that fits in one chunk is encoded as in training, to the bit.
    """
    if not base.info.family.facts.options.has_prompt_weights:
        return encode_prompts(base, [prompt.text], device=device)
    chunked = _chunk_for_all(base, prompt)
    if prompt.plain is not None and all(part.is_plain for part in chunked):
        return encode_prompts(base, [prompt.plain], device=device, clip_skip=clip_skip)
    count = max(len(part.chunks) for part in chunked)
    ids, weights = [], []
    for part, tokenizer, encoder in zip(chunked, base.tokenizers, base.text_encoders, strict=True):
        chunks = [*part.chunks, *[Chunk((), ())] * (count - len(part.chunks))]
        length = max_tokens(encoder)
        ids.append(torch.tensor([_with_ends(tokenizer, chunk.ids, length) for chunk in chunks]))
        weights.append(torch.tensor([_padded(chunk.weights, length) for chunk in chunks]))
    network = network_of(base.info.family)
    assert isinstance(network, UNetNetwork)  # the families with prompt weights
    ids = [part.to(device) for part in ids]
    encoded = network.encode_tokens(base.text_encoders, ids, clip_skip=clip_skip)
    hidden = encoded.hidden
    if any(bool((part != 1).any()) for part in weights):
        empty = encode_prompts(base, [""], device=device, clip_skip=clip_skip).hidden
        # SDXL's two tokenizers differ only in what they pad with
        hidden = _weighted(hidden, empty, weights[0].to(hidden)[..., None])
    pooled = None if encoded.pooled is None else encoded.pooled[:1]
    return TextStates(hidden.reshape(1, -1, hidden.shape[-1]), pooled)


def find_unread(base: LoadedBase, prompt: ParsedPrompt) -> str:
    """The end of a prompt that does not fit in the chunks; "" if all of it does."""
    if not base.info.family.facts.options.has_prompt_weights:
        return network_of(base.info.family).unread(base.tokenizers, prompt.text)
    ends = [part.unread for part in _chunk_for_all(base, prompt)]
    return max(ends, key=len, default="").strip()


def lengthen(encoded: TextStates, filler: TextStates, tokens: int) -> TextStates:
    """The embeddings with as many chunks of the filler behind them as make `tokens`.

    Those of a family that reads no padding stay as they are.
    """
    if encoded.lengths is not None:
        return encoded  # padding is not read
    missing = (tokens - encoded.hidden.shape[1]) // filler.hidden.shape[1]
    if missing <= 0:
        return encoded
    return TextStates(
        torch.cat([encoded.hidden, *[filler.hidden] * missing], dim=1), encoded.pooled
    )


def _weighted(states: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """States (chunks, tokens, width) moved from the empty prompt's by weights (chunks, tokens, 1).

    Those of weight 1 stay as they are, to the bit.
    """
    return torch.where(weights == 1, states, empty + weights * (states - empty))


def _chunk_for_all(base: LoadedBase, prompt: ParsedPrompt) -> list[ChunkedPrompt]:
    return [
        _chunk(tokenizer, prompt, max_tokens(encoder) - tokenizer.num_special_tokens_to_add())
        for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True)
    ]


def _chunk(tokenizer: Any, prompt: ParsedPrompt, size: int) -> ChunkedPrompt:
    """The chunks of at most `size` tokens; each section begins a new one."""
    chunks: list[Chunk] = []
    for index, section in enumerate(prompt.sections):
        text = "".join(part.text for part in section)
        tokens = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts = [start for start, _ in tokens.offset_mapping]
        weights = _weights_at(section, starts)
        for first, end in pairwise(_bounds(text, tokens.offset_mapping, size)):
            if len(chunks) == MAX_CHUNKS:
                later = ParsedPrompt(prompt.sections[index + 1 :]).text
                return ChunkedPrompt(chunks, f"{text[starts[first] :]} {later}")
            chunks.append(Chunk(tokens.input_ids[first:end], weights[first:end]))
    return ChunkedPrompt(chunks, "")


def _bounds(text: str, offsets: Sequence[tuple[int, int]], size: int) -> list[int]:
    """The first token of each chunk, and the end of the last; a text without tokens is a chunk."""
    bounds = [0]
    while bounds[-1] < len(offsets):
        bounds.append(_chunk_end(text, offsets, bounds[-1], size))
    return bounds if offsets else [0, 0]


def _chunk_end(text: str, offsets: Sequence[tuple[int, int]], first: int, size: int) -> int:
    """The token behind the last of a chunk: where the text has a comma, else a new word."""
    last = first + size
    if last >= len(offsets):
        return len(offsets)
    reach = range(last, max(first, last - REACH), -1)
    for cut in reach:
        if text[offsets[cut - 1][0] : offsets[cut - 1][1]].strip() in CUTS:
            return cut
    return next((cut for cut in reach if offsets[cut - 1][1] < offsets[cut][0]), last)


def _weights_at(section: Sequence[Fragment], starts: Iterable[int]) -> list[float]:
    """The weight of the fragment in which each token starts."""
    bounds = [0, *accumulate(len(part.text) for part in section)]
    return [section[min(bisect_right(bounds, at), len(section)) - 1].weight for at in starts]


def _with_ends(tokenizer: Any, ids: Sequence[int], length: int) -> list[int]:
    """The ids as the tokenizer gives them to the encoder: start, tokens, end, padding."""
    ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (length - len(ids))


def _padded(weights: Sequence[float], length: int) -> list[float]:
    """The weights of all tokens of a chunk: 1 for those that the tokenizer adds."""
    return [1.0, *weights, *[1.0] * (length - 1 - len(weights))]
