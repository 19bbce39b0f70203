"""Safetensors files written tensor by tensor: only one tensor is in memory at a time."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.core.lora_files.header import replacing
from worker.core.lora_files.tools.stack import ToolError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
ROOM_TO_SPARE = 64 * 2**20  # bytes left for headers and everybody else
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, eq=False)
class Item:
    """A tensor to write; `read` gives it when its turn comes, of any type that casts to `dtype`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes in the file."""
        return prod(self.shape) * self.dtype.itemsize


def write(
    path: Path,
    items: Sequence[Item],
    *,
    metadata: Mapping[str, str],
    on_item: Callable[[], None] = lambda: None,
) -> None:
    """Write the file; it appears complete or not at all. `on_item` may raise to stop.

    Raises ToolError when a number does not fit into the type it is written as.
    """
    ordered = sorted(items, key=lambda item: (-item.dtype.itemsize, item.name))  # stay aligned
    with replacing(path) as file:
        file.write(_header(ordered, metadata))
        for item in ordered:
            file.write(_bytes(item))
            on_item()


def check_room(folder: Path, size_bytes: int) -> None:
    """Raise ToolError unless `size_bytes` fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + ROOM_TO_SPARE:
        raise ToolError(
            f"The result takes {gigabytes(size_bytes)} and only {gigabytes(free)} are free on that "
            "disk. Free some space, choose fp16, or another place."
        )


@contextmanager
def sentence_when_full() -> Iterator[None]:
    """Turn the system's "no space left" into a ToolError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ToolError(
            "The disk became full, so nothing was written. Free some space, then try again."
        ) from error


def gigabytes(size: int) -> str:
    """A size as people say it, in powers of 1,024."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MB"


def _header(items: Sequence[Item], metadata: Mapping[str, str]) -> bytes:
    content: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for item in items:
        end = position + item.size_bytes
        content[item.name] = {
            "dtype": _NAMES[item.dtype],
            "shape": list(item.shape),
            "data_offsets": [position, end],
        }
        position = end
    raw = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def _bytes(item: Item) -> memoryview:
    tensor = item.read()
    cast = tensor.to(item.dtype).reshape(item.shape).contiguous()
    if cast.dtype.is_floating_point and cast.dtype.itemsize < tensor.dtype.itemsize:
        _check_finite(item, tensor, cast)
    flat = cast.reshape(-1).view(torch.uint8) if cast.numel() else cast.new_empty(0).byte()
    return flat.numpy().data


def _check_finite(item: Item, exact: Tensor, cast: Tensor) -> None:
    if torch.isfinite(exact).all() and not torch.isfinite(cast).all():
        raise ToolError(
            f"A number in {item.name} is too large for {_NAMES[item.dtype].lower()}; choose bf16 "
            "or fp32."
        )
