"""Encodes captions: once when no text encoder is trained, else in every step."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from worker.core.bases.load import LoadedBase
from worker.core.bases.text import PromptEmbeddings, encode_prompts
from worker.core.training.data.tensor_cache import load_cached_tensors, save_cached_tensors

PROMPTS_ENCODED_AT_ONCE = 32
TEXT_LAYOUT = 1
PROMPTS_REMEMBERED = 256


class CaptionEncoder(Protocol):
    """Encodes captions to embeddings, in order."""

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Hidden states (n, tokens, dim) and, for SDXL, pooled states (n, dim)."""


class LiveCaptionEncoder:
    """Encodes in every step, so that gradients reach the text encoders' adapters."""

    def __init__(self, base: LoadedBase, *, device: str, clip_skip: int = 1) -> None:
        self._base = base
        self._device = device
        self._clip_skip = clip_skip

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Encode each distinct caption once and expand the result to the batch."""
        different = list(dict.fromkeys(captions))
        encoded = _encode_captions(self._base, different, self._device, self._clip_skip)
        return encoded.select([different.index(caption) for caption in captions])


class PrecomputedCaptionEncoder:
    """Encodes all captions of a run at creation; the text encoders are not needed afterwards.

    With a folder it reuses those of earlier runs on the same base. Embeddings stay in host memory,
    and only a batch's go to the device: 5,000 captions of an SDXL take 3 GB. With a folder and a
    family that stores text, they stay on disk instead. Raises OSError if they cannot be written
    there, and StorageError later if they have disappeared.
    """

    def __init__(
        self,
        base: LoadedBase,
        captions: Iterable[str],
        *,
        device: str,
        clip_skip: int = 1,
        folder: Path | None = None,
    ) -> None:
        different = list(dict.fromkeys(captions))
        self._device = device
        self._rows = {caption: row for row, caption in enumerate(different)}
        shelf = _EmbeddingCache(folder, base, clip_skip)
        known = {caption: found for caption in different if (found := shelf.read(caption))}
        missing = [caption for caption in different if caption not in known]
        # one by one on a CPU, where the last bits depend on the batch size
        at_once = 1 if device == "cpu" else PROMPTS_ENCODED_AT_ONCE
        with torch.no_grad():
            for start in range(0, len(missing), at_once):
                chunk = missing[start : start + at_once]
                encoded = _encode_captions(base, chunk, device, clip_skip).map(Tensor.cpu)
                if shelf.dtype is not None:
                    encoded = encoded.map(lambda part: part.to(shelf.dtype))
                for row, caption in enumerate(chunk):
                    known[caption] = _select_rows(encoded, [row])
                    shelf.write(caption, known[caption])
        self._known = _concat_embeddings([known[caption] for caption in different], "cpu")

    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Look up the captions."""
        found = _select_rows(self._known, [self._rows[caption] for caption in captions])
        return _move_embeddings(found, self._device)


class _EmbeddingCache:
    """Encoded captions on disk, named by everything they depend on; disabled without a folder.

    With `is_kept`, a training reads them from here in every step.
    """

    def __init__(self, folder: Path | None, base: LoadedBase, clip_skip: int) -> None:
        mark = f"text-{base.info.fingerprint[:16]}-{clip_skip}-{TEXT_LAYOUT}"
        self._folder = None if folder is None else folder / mark

    def read(self, caption: str) -> PromptEmbeddings | None:
        """The embeddings of a caption (1, tokens, dim); None when missing or damaged."""
        tensors = load_cached_tensors(self._embedding_path(caption), needed="hidden")
        return (
            None if tensors is None else PromptEmbeddings(tensors["hidden"], tensors.get("pooled"))
        )

    def write(self, caption: str, states: PromptEmbeddings) -> None:
        """Save the embeddings for later runs."""
        save_cached_tensors(
            self._embedding_path(caption), {"hidden": states.hidden, "pooled": states.pooled}
        )

    def _embedding_path(self, caption: str) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(caption.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"


class LruCaptionEncoder:
    """Encodes captions on first use and caches the most recent: for shuffled tags, whose orders are
    too many to precompute."""

    def __init__(self, base: LoadedBase, *, device: str, clip_skip: int = 1) -> None:
        self._base = base
        self._device = device
        self._clip_skip = clip_skip
        self._known: OrderedDict[str, PromptEmbeddings] = OrderedDict()

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> PromptEmbeddings:
        """Each caption is encoded alone, so that its last bits depend on nothing else."""
        return _concat_embeddings(
            [self._encode_caption(caption) for caption in captions], self._device
        )

    def _encode_caption(self, caption: str) -> PromptEmbeddings:
        if caption not in self._known:
            encoded = _encode_captions(self._base, [caption], self._device, self._clip_skip)
            self._known[caption] = encoded
            if len(self._known) > PROMPTS_REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(caption)
        return self._known[caption]


def _encode_captions(
    base: LoadedBase, captions: Sequence[str], device: str, clip_skip: int
) -> PromptEmbeddings:
    """Embeddings in which an empty caption is zeros, if the base was trained like that."""
    encoded = encode_prompts(base, captions, device=device, clip_skip=clip_skip)
    if not base.info.zero_empty_negative or "" not in captions:
        return encoded
    said = torch.tensor([bool(caption) for caption in captions], device=device)
    pooled = None if encoded.pooled is None else encoded.pooled * said[:, None]
    return PromptEmbeddings(hidden=encoded.hidden * said[:, None, None], pooled=pooled)


def _concat_embeddings(found: Sequence[PromptEmbeddings], device: str) -> PromptEmbeddings:
    """The embeddings of several captions as one batch on the device."""
    pooled = [one.pooled for one in found if one.pooled is not None]
    return PromptEmbeddings(
        hidden=torch.cat([one.hidden for one in found]).to(device),
        pooled=torch.cat(pooled).to(device) if pooled else None,
    )


def _move_embeddings(embeddings: PromptEmbeddings, device: str) -> PromptEmbeddings:
    pooled = None if embeddings.pooled is None else embeddings.pooled.to(device)
    return PromptEmbeddings(hidden=embeddings.hidden.to(device), pooled=pooled)


def _select_rows(embeddings: PromptEmbeddings, rows: list[int]) -> PromptEmbeddings:
    index = torch.tensor(rows, device=embeddings.hidden.device)
    pooled = None if embeddings.pooled is None else embeddings.pooled[index]
    return PromptEmbeddings(hidden=embeddings.hidden[index], pooled=pooled)
