"""Encodes captions: once when no text encoder is trained, else in every step."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from worker.core.bases.load import LoadedBase, encode_prompts
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.tensor_cache import load_cached_tensors, save_cached_tensors
from worker.core.training.errors import LostCacheError
from worker.core.wording import plural, shortened

PROMPTS_ENCODED_AT_ONCE = 32
TEXT_LAYOUT = 1
PROMPTS_REMEMBERED = 256
END_SHOWN = 100  # characters


class CaptionEncoder(Protocol):
    """Encodes captions to embeddings, in order."""

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """Hidden states (n, tokens, dim) and, for SDXL, pooled states (n, dim)."""


class LiveCaptionEncoder:
    """Encodes in every step, so that gradients reach the text encoders' adapters."""

    def __init__(self, base: LoadedBase, *, device: str, clip_skip: int = 1) -> None:
        self._base = base
        self._device = device
        self._clip_skip = clip_skip

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """Encode each distinct caption once and expand the result to the batch."""
        different = list(dict.fromkeys(captions))
        encoded = _encode_captions(self._base, different, self._device, self._clip_skip)
        return encoded.select([different.index(caption) for caption in captions])


class PrecomputedCaptionEncoder:
    """Encodes all captions of a run at creation; the text encoders are not needed afterwards.

    With a folder it reuses those of earlier runs on the same base. Embeddings stay in host memory,
    and only a batch's go to the device: 5,000 captions of an SDXL take 3 GB. With a folder and a
    family that stores text, they stay on disk instead. Raises OSError if they cannot be written
    there, and LostCacheError later if they have disappeared.
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
        self._shelf = shelf = _EmbeddingCache(folder, base, clip_skip)
        known: dict[str, TextStates] = {}
        missing = []
        for caption in different:
            found = shelf.read(caption)
            if found is None:
                missing.append(caption)
            elif not shelf.is_kept:
                known[caption] = found
        # one by one on a CPU, where the last bits depend on the batch size
        at_once = 1 if device == "cpu" else PROMPTS_ENCODED_AT_ONCE
        with torch.no_grad():
            for start in range(0, len(missing), at_once):
                chunk = missing[start : start + at_once]
                encoded = _encode_captions(base, chunk, device, clip_skip).map(Tensor.cpu)
                if shelf.dtype is not None:
                    encoded = encoded.map(lambda part: part.to(shelf.dtype))
                for row, caption in enumerate(chunk):
                    states = encoded.select([row])
                    shelf.write(caption, states)
                    if not shelf.is_kept:
                        known[caption] = states
        self._rows = {caption: row for row, caption in enumerate(known)}
        self._known = TextStates.concat([known[caption] for caption in known]) if known else None

    def __call__(self, captions: Sequence[str]) -> TextStates:
        """Look up the captions."""
        if self._known is None:
            found = TextStates.concat([self._shelf.require(caption) for caption in captions])
        else:
            found = self._known.select([self._rows[caption] for caption in captions])
        return found.map(lambda part: part.to(self._device))


class _EmbeddingCache:
    """Encoded captions on disk, named by everything they depend on; disabled without a folder.

    With `is_kept`, a training reads them from here in every step.
    """

    def __init__(self, folder: Path | None, base: LoadedBase, clip_skip: int) -> None:
        mark = f"text-{base.info.fingerprint[:16]}-{clip_skip}-{TEXT_LAYOUT}"
        self._folder = None if folder is None else folder / mark
        self.dtype = network_of(base.info.family).stored_text
        self.is_kept = folder is not None and self.dtype is not None

    def read(self, caption: str) -> TextStates | None:
        """The embeddings of a caption (1, tokens, dim); None when missing or damaged."""
        tensors = load_cached_tensors(self._embedding_path(caption), needed="hidden")
        if tensors is None:
            return None
        lengths = tuple(tensors["lengths"].tolist()) if "lengths" in tensors else None
        return TextStates(tensors["hidden"], tensors.get("pooled"), lengths)

    def require(self, caption: str) -> TextStates:
        """The same. Raises LostCacheError when missing or damaged."""
        if (found := self.read(caption)) is None:
            raise LostCacheError(
                "The encoded captions of this training have disappeared from the cache. Start it "
                "again: it continues from its newest checkpoint."
            )
        return found

    def write(self, caption: str, states: TextStates) -> None:
        """Save the embeddings for later steps or runs. Raises OSError if a training needs them."""
        parts = {"hidden": states.hidden, "pooled": states.pooled}
        if states.lengths is not None:
            parts["lengths"] = torch.tensor(states.lengths)
        save_cached_tensors(self._embedding_path(caption), parts, needed=self.is_kept)

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
        self._known: OrderedDict[str, TextStates] = OrderedDict()

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextStates:
        """Each caption is encoded alone, so that its last bits depend on nothing else."""
        return TextStates.concat([self._encode_caption(caption) for caption in captions])

    def _encode_caption(self, caption: str) -> TextStates:
        if caption not in self._known:
            encoded = _encode_captions(self._base, [caption], self._device, self._clip_skip)
            self._known[caption] = encoded
            if len(self._known) > PROMPTS_REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(caption)
        return self._known[caption]


def describe_cut_captions(base: LoadedBase, images: Iterable[TrainingImage]) -> str:
    """A sentence on captions whose ends the base does not read; "" if it reads all of them."""
    network = network_of(base.info.family)
    texts = dict.fromkeys(text for image in images for text in image.texts)
    ends = [end for text in texts if (end := network.unread(base.tokenizers, text))]
    if not ends:
        return ""
    one = len(ends) == 1
    return (
        f"{plural(len(ends), 'caption')} {'is' if one else 'are'} too long for this base model, "
        f"which does not read {'its end' if one else 'their ends, such as'} "
        f"“{shortened(ends[0], END_SHOWN)}”. Shorten {'it' if one else 'them'} to train on all of "
        "the words."
    )


def _encode_captions(
    base: LoadedBase, captions: Sequence[str], device: str, clip_skip: int
) -> TextStates:
    """Embeddings in which an empty caption is zeros, if the base was trained like that."""
    encoded = encode_prompts(base, captions, device=device, clip_skip=clip_skip)
    if not base.info.zero_empty_negative or "" not in captions:
        return encoded
    said = torch.tensor([bool(caption) for caption in captions], device=device)
    pooled = None if encoded.pooled is None else encoded.pooled * said[:, None]
    return TextStates(hidden=encoded.hidden * said[:, None, None], pooled=pooled)
