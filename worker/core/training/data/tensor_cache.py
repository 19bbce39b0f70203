"""A cache of tensor files that can be made again."""

import json
import zlib
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worker.core.atomic_write import write_atomically

CHECKSUM = "crc32"
LENGTH_BYTES = 8  # the length field before the header


def load_cached_tensors(path: Path | None, *, needed: str) -> dict[str, Tensor] | None:
    """The tensors of a file; None when it is missing, damaged, or `needed` is not all finite."""
    if path is None or not path.is_file():
        return None
    try:
        content = path.read_bytes()
        tensors: dict[str, Tensor] = load(content)
    except (OSError, SafetensorError, ValueError):
        return None
    if not _is_intact(content):
        return None
    return tensors if needed in tensors and bool(torch.isfinite(tensors[needed]).all()) else None


def save_cached_tensors(
    path: Path | None, parts: Mapping[str, Tensor | None], *, needed: bool = False
) -> None:
    """Write the tensors; on a full disk, the next run makes them again, or with `needed` OSError
    is raised."""
    if path is None:
        return
    tensors = {
        name: part.detach().cpu().contiguous() for name, part in parts.items() if part is not None
    }
    content = save(tensors, {CHECKSUM: _tensor_checksum(save(tensors))})
    with nullcontext() if needed else suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, durable=False)


def _is_intact(content: bytes) -> bool:
    """True when the tensor data is as written; the write did not wait for the disk.

    An older file without a checksum is accepted.
    """
    header = json.loads(content[LENGTH_BYTES : _numbers_offset(content)])
    return header.get("__metadata__", {}).get(CHECKSUM) in (None, _tensor_checksum(content))


def _tensor_checksum(content: bytes) -> str:
    """The checksum of the tensor data of a file."""
    return f"{zlib.crc32(memoryview(content)[_numbers_offset(content) :]):08x}"


def _numbers_offset(content: bytes) -> int:
    """The offset of the tensor data, after the header."""
    return LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
