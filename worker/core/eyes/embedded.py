"""The embedded eyes: a small network that learned 1,100 subjects in many drawn looks.

EfficientNet-Lite0 (3.4 M parameters) and a linear read-out; the text side is a list of names and of
other words for them. `README.md` here says how well they see, `tools/eyes/README.md` how they were
made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.core.device import choose_device
from worker.core.eyes.efficientnet import EfficientNetLite0, EyesHead
from worker.core.eyes.images import check_images, square
from worker.core.eyes.interface import (
    ChannelStatistics,
    Embeddings,
    EyesError,
    UnknownText,
    check_texts,
    unit_length,
)
from worker.core.eyes.vocabulary import Vocabulary

WEIGHTS: Path = Path(__file__).parent / "weights" / "eyes.safetensors"
SIZE = 128
"""Side of the square that the network sees, in pixels."""

BATCH = 32
STYLE_BLOCKS = (3, 4, 5)
"""Those whose statistics agree best with a reader about styles: earlier ones see single colors and
edges, later ones the subject."""

FORMAT = "brushwork-eyes-1"


class EmbeddedEyes:
    """Eyes from one weights file, see `open_eyes`."""

    title = "The embedded eyes"
    use = "They see style and kinds of things, not faces or text."

    def __init__(
        self,
        network: EfficientNetLite0,
        head: EyesHead,
        vocabulary: Vocabulary,
        *,
        scale: float,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.network = channels_last(network.to(self.device).eval())
        self.head = head.to(self.device).eval()
        self.vocabulary = vocabulary
        self.names = vocabulary.names
        self.scale = scale
        with torch.no_grad():
            self._points = self.head.name_points().cpu().numpy()
        self.dimensions = int(self._points.shape[1])

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        parts = [self.head.embed(self.network(batch)) for batch in self._batches(images)]
        return unit_length(torch.cat(parts).cpu().numpy())

    @torch.no_grad()
    def channel_statistics(self, images: Sequence[Image.Image]) -> ChannelStatistics:
        found: list[list[Tensor]] = [[] for _ in STYLE_BLOCKS]
        for hidden in map(self.network.stem, self._batches(images)):
            for number, block in enumerate(self.network.block_list()[: STYLE_BLOCKS[-1] + 1]):
                hidden = block(hidden)
                if number in STYLE_BLOCKS:
                    pixels = hidden.flatten(2)
                    moments = torch.cat([pixels.mean(dim=2), pixels.std(dim=2)], dim=1)
                    found[STYLE_BLOCKS.index(number)].append(moments.float().cpu())
        return tuple(torch.cat(parts).numpy() for parts in found)

    def _batches(self, images: Sequence[Image.Image]) -> Iterator[Tensor]:
        """What the network reads, (at most BATCH, 3, SIZE, SIZE) each. Raises EyesError."""
        check_images(images)
        for start in range(0, len(images), BATCH):
            pixels = np.stack([square(image, SIZE) for image in images[start : start + BATCH]])
            seen = network_input(torch.from_numpy(pixels).to(self.device))
            yield seen.contiguous(memory_format=torch.channels_last)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        check_texts(texts)
        found = [self.vocabulary.find(text) for text in texts]
        if unknown := [text for text, names in zip(texts, found, strict=True) if not names]:
            raise UnknownText(unknown)
        return unit_length(np.stack([self._points[list(names)].mean(axis=0) for names in found]))

    def knows(self, texts: Sequence[str]) -> list[bool]:
        check_texts(texts)
        return [bool(self.vocabulary.find(text)) for text in texts]


def channels_last(network: EfficientNetLite0) -> EfficientNetLite0:
    """The network with its weights in the order that is fastest for depthwise convolutions."""
    untyped: Any = network  # torch's stubs do not know this argument alone
    untyped.to(memory_format=torch.channels_last)
    return network


def network_input(images: Tensor) -> Tensor:
    """Images in [0, 1] as EfficientNet-Lite0 was trained on them: (255 x - 127) / 128."""
    return (images * 255 - 127) / 128


def load_embedded(path: Path = WEIGHTS, *, device: str = "auto") -> EmbeddedEyes:
    """The eyes stored in `path`. Raises EyesError when it is missing, damaged or another file."""
    if not path.is_file():
        raise EyesError(f"The weights of the eyes are missing: {path}. Install Brushwork again.")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if about.get("format") != FORMAT:
        raise EyesError(f"{path} does not hold weights of the embedded eyes ({FORMAT}).")
    try:
        words = json.loads(about["vocabulary"])
        names = tuple(words["names"])
        vocabulary = Vocabulary(names, {word: tuple(ids) for word, ids in words["words"].items()})
        network, head = EfficientNetLite0(), EyesHead(len(names))
        network.load_state_dict(_part(tensors, "network."))
        head.load_state_dict(_part(tensors, "head."))
        scale = float(about["scale"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    return EmbeddedEyes(network, head, vocabulary, scale=scale, device=choose_device(device))


def save_embedded(eyes: EmbeddedEyes, path: Path) -> None:
    """Write the eyes in fp16, to a temporary file first."""
    tensors = {f"network.{name}": value for name, value in eyes.network.state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in eyes.head.state_dict().items()}
    words = {"names": eyes.vocabulary.names, "words": eyes.vocabulary.words}
    about = {"format": FORMAT, "scale": repr(eyes.scale), "vocabulary": json.dumps(words)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    half = {name: value.cpu().to(torch.float16).contiguous() for name, value in tensors.items()}
    save_file(half, partial, metadata=about)
    partial.replace(path)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def _damaged(path: Path, reason: str) -> EyesError:
    return EyesError(
        f"The weights of the eyes are damaged: {path} ({reason}). Install Brushwork again."
    )
