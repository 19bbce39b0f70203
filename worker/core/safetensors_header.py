"""Safetensors headers, read and written without trusting them and without torch.

The format: 8 bytes (little-endian length n), n bytes of JSON, then the tensors' bytes. A header is
checked completely before anything is allocated for the tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeGuard

from worker.core.wording import size_text

MAX_ADAPTER_BYTES = 2_200_000_000  # of an adapter's file
MAX_ADAPTER_HEADER_BYTES = 9_000_000
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_PICKLE_HINT = (
    "This is a PyTorch pickle ({kind}), which can run code when it is opened. "
    "Only .safetensors files are accepted."
)


class HeaderError(ValueError):
    """A file whose safetensors header cannot be used; the message is a sentence for users."""


class TensorEntry(NamedTuple):
    """The header's entry for one tensor, in the bytes `start` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header; `length` is its size in bytes, without the 8 bytes of the length."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    length: int

    @property
    def data_offset(self) -> int:
        """The position of the first tensor byte in the file."""
        return 8 + self.length


def read_header(path: Path, *, limit: int = MAX_ADAPTER_HEADER_BYTES) -> Header:
    """The checked header of a safetensors file; at most `limit` bytes of it are read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = _read_raw(file, size, limit)
    except OSError as error:
        raise HeaderError(f"The file cannot be read: {error.strerror}.") from error
    return parse_header(raw, data_bytes=size - 8 - len(raw))


def parse_header(raw: bytes, *, data_bytes: int) -> Header:
    """The header of `raw` JSON bytes, whose tensors must fill `data_bytes` exactly."""
    try:
        content = json.loads(raw, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise HeaderError("The file's header is damaged: it is not readable JSON.") from error
    if not isinstance(content, dict):
        raise HeaderError("The file's header is damaged: it is not a JSON object.")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise HeaderError("The file's header is damaged: its metadata is not a map of strings.")
    tensors = {name: _parse_entry(name, value) for name, value in content.items()}
    _check_layout(tensors, data_bytes)
    return Header(tensors=tensors, metadata=metadata, length=len(raw))


def with_metadata(serialized: bytes, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """(header bytes, tensor bytes) of a serialized file with its metadata replaced and sorted.

    Same tensors and metadata give the same bytes; the library's own order of metadata does not.
    """
    (length,) = struct.unpack("<Q", serialized[:8])
    content: dict[str, Any] = json.loads(serialized[8 : 8 + length])
    content.pop("__metadata__", None)
    return _header_bytes(content, metadata), serialized[8 + length :]


def fp32_header(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> bytes:
    """The header of fp32 tensors that follow one another in the order of `shapes`."""
    content: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        end = position + prod(shape) * DTYPE_BYTES["F32"]
        content[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    return _header_bytes(content, metadata)


def _header_bytes(content: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    ordered = {"__metadata__": dict(sorted(metadata.items())), **dict(sorted(content.items()))}
    raw = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(raw)) + raw


@contextmanager
def replacing(path: Path, *, check: Callable[[Path], None] = lambda _: None) -> Iterator[BinaryIO]:
    """A file to write, which is renamed to `path` only when it is complete (fsync first).

    `check` gets the finished file under its temporary name; when it raises, nothing appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, on systems that can open a folder (not Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_raw(file: BinaryIO, size: int, limit: int) -> bytes:
    start = file.read(16)
    if not start:
        raise HeaderError("The file is empty.")
    if start[:4] == b"GGUF":  # as the length of a header this would be gigabytes
        raise HeaderError(
            "This is a GGUF file, whose weights are rounded. Use the model's diffusers folder."
        )
    if start[8:9] != b"{":  # after the length of the header, whose bytes can be anything
        if start[:2] == b"PK":
            raise HeaderError(_PICKLE_HINT.format(kind="zip form"))
        if start[:1] == b"\x80":
            raise HeaderError(_PICKLE_HINT.format(kind="old form"))
        raise HeaderError("This is not a safetensors file.")
    (length,) = struct.unpack("<Q", start[:8])
    if length > size - 8:
        raise HeaderError("The file is cut off or damaged: its header is longer than the file.")
    if length > limit:
        raise HeaderError(
            f"The file's header takes {size_text(length)}; at most {size_text(limit)} are accepted."
        )
    file.seek(8)
    return file.read(length)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("duplicate key")
    return content


def _parse_entry(name: str, value: object) -> TensorEntry:
    if not isinstance(value, dict):
        raise _damaged(name)
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(offsets, count=2)):
        raise _damaged(name)
    if dtype not in DTYPE_BYTES:
        raise HeaderError(f"The tensor {name[:80]!r} has the unknown number type {dtype[:20]!r}.")
    start, end = offsets
    if end - start != prod(shape) * DTYPE_BYTES[dtype]:
        raise HeaderError(
            f"The file is damaged: the tensor {name[:80]!r} has another size than its shape says."
        )
    return TensorEntry(dtype, tuple(shape), start, end)


def _damaged(name: str) -> HeaderError:
    return HeaderError(f"The file's header is damaged: the entry {name[:80]!r} is not a tensor.")


def _are_sizes(value: object, *, count: int | None = None) -> TypeGuard[list[int]]:
    """True for a list of non-negative integers, `count` of them if it is given."""
    if not isinstance(value, list) or (count is not None and len(value) != count):
        return False
    return all(type(size) is int and size >= 0 for size in value)


def _check_layout(tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Raise unless the tensors follow one another without gaps and fill the file."""
    position = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise HeaderError("The file is damaged: its tensors overlap or leave holes.")
        position = entry.end
    if position > data_bytes:
        raise HeaderError("The file is cut off: tensors are missing at its end.")
    if position < data_bytes:
        raise HeaderError("The file is damaged: there is more in it than its header says.")


def tensor_hash(path: Path) -> str:
    """SHA-256 of the bytes after the header, which other programs use to identify a LoRA."""
    with path.open("rb") as file:
        file.seek(read_header(path).data_offset)
        return hashlib.file_digest(file, "sha256").hexdigest()
