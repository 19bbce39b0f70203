"""Chooses the eyes by name, folder or Hub id; loads torch only when it opens them."""

from __future__ import annotations

from pathlib import Path

from worker.core.device import choose_device
from worker.core.eyes.interface import Eyes
from worker.core.lean_imports import lean_imports

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
