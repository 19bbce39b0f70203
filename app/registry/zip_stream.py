"""A ZIP archive that is made while it is read: nothing is stored or kept in memory on the way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

FIRST_YEAR = 1980  # of times in a ZIP archive
FILE_MODE = 0o644


@dataclass(frozen=True)
class StreamedFile:
    """A file of the archive: its name, time, size in bytes and content.

    `pack`: compress it; images are compressed already.
    """

    name: str
    time: datetime
    size: int
    chunks: Iterable[bytes]
    pack: bool = False


def archive_chunks(files: Iterable[StreamedFile]) -> Iterator[bytes]:
    """The archive in chunks; each file is asked for after the one before it was read."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            year = max(file.time.year, FIRST_YEAR)
            info = zipfile.ZipInfo(file.name, (year, *file.time.timetuple()[1:6]))
            info.external_attr = FILE_MODE << 16
            info.file_size = file.size
            if file.pack:
                info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as target:
                for chunk in file.chunks:
                    target.write(chunk)
                    yield written.take()
            yield written.take()
    yield written.take()


class _Written(io.RawIOBase):
    """Keeps what is written until it is taken; it cannot seek, as `zipfile` finds out."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._chunks.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """The bytes that were written since the last call."""
        taken, self._chunks = b"".join(self._chunks), []
        return taken
