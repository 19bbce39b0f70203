"""Writing safetensors files with only one tensor in memory at a time."""

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

from worker.core.lora_files.tools.stack import ToolError
from worker.core.safetensors_header import replacing
from worker.core.torch_dtypes import SAFETENSORS_DTYPES
from worker.core.wording import size_text

_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
SPARE_BYTES = 64 * 2**20  # bytes left free for headers and other programs
DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, eq=False)
class TensorItem:
    """A tensor to write; `read` is called when it is written and may return another number type."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        """Its size in the file, in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def write_tensors(
    path: Path,
    items: Sequence[TensorItem],
    *,
    metadata: Mapping[str, str],
    on_item: Callable[[], None] = lambda: None,
) -> None:
    """Write the file atomically; `on_item` is called after each tensor and may raise to stop.

    Raises ToolError if a value is too large for its number type.
    """
    ordered = sorted(
        items, key=lambda item: (-item.dtype.itemsize, item.name)
    )  # keeps them aligned
    with replacing(path) as file:
        file.write(_header_bytes(ordered, metadata))
        for item in ordered:
            file.write(_tensor_bytes(item))
            on_item()


def check_disk_space(folder: Path, size_bytes: int) -> None:
    """Raise ToolError unless the disk of `folder` has `size_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + SPARE_BYTES:
        raise ToolError(
            f"The result needs {size_text(size_bytes)}, but only {size_text(free)} "
            "are free on that disk. Free some space, or choose fp16 or another disk."
        )


@contextmanager
def translate_full_disk() -> Iterator[None]:
    """Raise ToolError in place of the system's "no space left" error."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        raise ToolError(
            "The disk is full, so nothing was written. Free some space, then try again."
        ) from error


def _header_bytes(items: Sequence[TensorItem], metadata: Mapping[str, str]) -> bytes:
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


def _tensor_bytes(item: TensorItem) -> memoryview:
    tensor = item.read()
    cast = tensor.to(item.dtype).reshape(item.shape).contiguous()
    if cast.dtype.is_floating_point and cast.dtype.itemsize < tensor.dtype.itemsize:
        _check_overflow(item, tensor, cast)
    flat = cast.reshape(-1).view(torch.uint8) if cast.numel() else cast.new_empty(0).byte()
    return flat.numpy().data


def _check_overflow(item: TensorItem, exact: Tensor, cast: Tensor) -> None:
    if torch.isfinite(exact).all() and not torch.isfinite(cast).all():
        raise ToolError(
            f"A value in {item.name} is too large for {_NAMES[item.dtype].lower()}. Choose bf16 "
            "or fp32."
        )
