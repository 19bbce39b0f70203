"""Tensor files that can be made again: read where they are sound, written where there is room."""

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worker.core.training.atomic_write import write_atomically

CHECKSUM = "crc32"
LENGTH_BYTES = 8  # before the header, its length


def read_kept(path: Path | None, *, needed: str) -> dict[str, Tensor] | None:
    """The tensors of a file; None when it is not there, damaged, or `needed` is not all numbers."""
    if path is None or not path.is_file():
        return None
    try:
        content = path.read_bytes()
        tensors: dict[str, Tensor] = load(content)
    except (OSError, SafetensorError, ValueError):
        return None
    if not _is_as_written(content):
        return None
    return tensors if needed in tensors and bool(torch.isfinite(tensors[needed]).all()) else None


def keep(path: Path | None, parts: Mapping[str, Tensor | None]) -> None:
    """Write the parts there are; a full disk only means that the next run makes them again."""
    if path is None:
        return
    tensors = {
        name: part.detach().cpu().contiguous() for name, part in parts.items() if part is not None
    }
    content = save(tensors, {CHECKSUM: _checksum(save(tensors))})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, durable=False)


def _is_as_written(content: bytes) -> bool:
    """Whether the numbers are those that were written, which nothing waited to see on the disk.

    A file from before there was a checksum is taken as it is.
    """
    header = json.loads(content[LENGTH_BYTES : _start(content)])
    return header.get("__metadata__", {}).get(CHECKSUM) in (None, _checksum(content))


def _checksum(content: bytes) -> str:
    """Of the numbers of a file alone."""
    return f"{zlib.crc32(memoryview(content)[_start(content) :]):08x}"


def _start(content: bytes) -> int:
    """Where the numbers begin, after the header."""
    return LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
