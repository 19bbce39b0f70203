"""Eyes: embeddings of images and texts in one space, to compare them and to name what images show.

`open_eyes()` gives the small embedded eyes, which need no download; `open_eyes(source)` those of a
CLIP or DINO model. Importing this package loads no torch.
"""

from __future__ import annotations

from pathlib import Path

from worker.core.device import choose_device
from worker.core.eyes.interface import Eyes, EyesError, Guess, NoTextSide, UnknownText
from worker.core.eyes.naming import name_images, similarity
from worker.core.lean_imports import lean_imports

__all__ = [
    "EMBEDDED",
    "Eyes",
    "EyesError",
    "Guess",
    "NoTextSide",
    "UnknownText",
    "name_images",
    "open_eyes",
    "similarity",
]

EMBEDDED = "embedded"


def open_eyes(source: str | Path = EMBEDDED, *, device: str = "auto") -> Eyes:
    """The embedded eyes, or those of a CLIP or DINO model.

    `source`: "embedded", a folder with a transformers model, or a model's id on the Hub, which is
    downloaded unless it is in the cache. `device`: a torch device, or "auto" for a GPU if there is
    one. Raises EyesError.
    """
    device = choose_device(device)
    with lean_imports(device):
        if str(source) == EMBEDDED:
            from worker.core.eyes.embedded import load_embedded

            return load_embedded(device=device)
        from worker.core.eyes.transformers_models import load_transformers_eyes

        return load_transformers_eyes(source, device=device)
