"""Tensor files that can be made again: read where they are sound, written where there is room."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from worker.training.files import write_atomically


def read_kept(path: Path | None, *, needed: str) -> dict[str, Tensor] | None:
    """The tensors of a file; None when it is not there, damaged, or `needed` is not all numbers."""
    if path is None or not path.is_file():
        return None
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError):
        return None
    return tensors if needed in tensors and bool(torch.isfinite(tensors[needed]).all()) else None


def keep(path: Path | None, parts: Mapping[str, Tensor | None]) -> None:
    """Write the parts there are; a full disk only means that the next run makes them again."""
    if path is None:
        return
    tensors = {
        name: part.detach().cpu().contiguous() for name, part in parts.items() if part is not None
    }
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save(tensors), durable=False)
