"""Reads the files of an uploaded zip archive with bounded time, memory and disk space.

No file is extracted by its name. The directory size is checked before Python parses it (100,000
names cost a second and 100 MB), file sizes are counted instead of trusted, and only the two
harmless compressions are accepted (LZMA may allocate gigabytes).
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

from app.registry.errors import InvalidInput
from app.registry.file_names import clean_filename, folder_of
from app.registry.wording import size_text

MAX_ENTRIES = 12_000  # 5,000 images with a caption each, and some more
MAX_ENTRY_BYTES = 60_000_000
MAX_TOTAL_BYTES = 12_000_000_000  # or the size of the archive and a tenth, if that is more
MAX_RATIO = 100
RATIO_FLOOR = 1 << 20  # bytes: below this, a high ratio is harmless
MAX_DIRECTORY_BYTES = MAX_ENTRIES * 1_024  # names, extra fields, comments
CHUNK = 1 << 18

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".cbz")
CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})

END = struct.Struct("<4s4H2LH")  # end of central directory, APPNOTE 4.3.16
END_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15
END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
MAX_COMMENT = 1 << 16

BROKEN = "The zip archive is damaged or truncated. Create it again."
TOO_MANY = f"The zip archive has more than {MAX_ENTRIES:,} entries. Split it into smaller ones."


class ArchiveRefused(InvalidInput, code="archive_refused"):
    """The archive is refused; the message gives the reason."""


class MemberRefused(InvalidInput, code="archive_member_refused"):
    """One file of the archive is refused; the message gives the reason."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: its display name, and its folder for pairing captions."""

    filename: str
    folder: str
    info: zipfile.ZipInfo


def is_clutter(path: str) -> bool:
    """True for files that operating systems add to folders, such as `.DS_Store`."""
    parts = path.replace("\\", "/").split("/")
    name = parts[-1].lower()
    return "__MACOSX" in parts or name in CLUTTER or name.startswith("._")


def is_hidden(path: str) -> bool:
    """True if the file or a parent folder starts with a dot."""
    parts = path.replace("\\", "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


class Archive:
    """An open zip archive, to use with `with`. Raises ArchiveRefused if invalid or too large.

    `max_entry_bytes`: the largest size of a file in it.
    """

    def __init__(self, file: IO[bytes], *, max_entry_bytes: int = MAX_ENTRY_BYTES) -> None:
        self._max_entry_bytes = max_entry_bytes
        _refuse_crowded(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
            raise ArchiveRefused(BROKEN) from None
        if len(self._zip.infolist()) > MAX_ENTRIES:  # the end record lied
            self._zip.close()
            raise ArchiveRefused(TOO_MANY)
        self._total = 0
        # what is stored without compression, as by an export, cannot unpack to more than it is
        length = file.seek(0, io.SEEK_END)
        self._max_total = max(MAX_TOTAL_BYTES, length + length // 10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def members(self) -> Iterator[Member]:
        """The files in archive order, without folders, hidden and system files."""
        for info in self._zip.infolist():
            name = info.filename
            if not info.is_dir() and not is_clutter(name) and not is_hidden(name):
                yield Member(clean_filename(info.filename), folder_of(info.filename), info)

    def read(self, member: Member) -> Iterator[bytes]:
        """The bytes of one file in chunks.

        Raises MemberRefused, possibly after some chunks, which must be discarded then. Raises
        ArchiveRefused if the archive unpacks to too much in total.
        """
        info = member.info
        _refuse_member(info, self._max_entry_bytes)
        size = 0
        try:
            with self._zip.open(info) as packed:
                while chunk := packed.read(CHUNK):
                    size += len(chunk)
                    self._count_bytes(size, len(chunk), info)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error):
            # wrong CRC, truncated data, header and directory differ, forged size
            raise MemberRefused(
                "The file is damaged inside the archive: its checksum or size is wrong. Create the "
                "archive again."
            ) from None
        except (RuntimeError, NotImplementedError, ValueError, OSError):
            raise MemberRefused("The file cannot be unpacked. Create the archive again.") from None

    def _count_bytes(self, size: int, step: int, info: zipfile.ZipInfo) -> None:
        self._total += step
        if self._total > self._max_total:
            raise ArchiveRefused(
                f"The zip archive unpacks to more than {size_text(self._max_total)}; "
                "the rest of it was not read. Split it into smaller ones."
            )
        if size > self._max_entry_bytes:
            raise MemberRefused(f"The file is larger than {size_text(self._max_entry_bytes)}.")
        if size > RATIO_FLOOR and size > MAX_RATIO * max(info.compress_size, 1):
            raise MemberRefused(
                f"The file unpacks to more than {MAX_RATIO} times its size, like a zip bomb. "
                "Upload it unpacked."
            )


def _refuse_member(info: zipfile.ZipInfo, max_entry_bytes: int) -> None:
    if info.flag_bits & 0x1:
        raise MemberRefused("The file is encrypted. Create the archive without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise MemberRefused("This is a link or device, not a file.")
    if info.filename.lower().endswith(ARCHIVE_SUFFIXES):
        raise MemberRefused("This is an archive inside an archive. Unpack it first.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MemberRefused(
            "The file uses an unsupported compression. Create the archive with standard zip "
            "compression."
        )
    if info.file_size > max_entry_bytes:
        raise MemberRefused(f"The file is larger than {size_text(max_entry_bytes)}.")


def _refuse_crowded(file: IO[bytes]) -> None:
    """Raise ArchiveRefused if the end records announce too large a directory.

    The records may be wrong, but the reader parses no more than the size they give.
    """
    file.seek(0, 2)
    length = file.tell()
    tail_length = min(length, END.size + MAX_COMMENT)
    file.seek(length - tail_length)
    tail = file.read(tail_length)
    # search order of zipfile: first without a comment, then the last signature
    place = len(tail) - END.size
    if place < 0 or tail[place : place + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < END.size:
        raise ArchiveRefused(BROKEN if tail else "The zip archive is empty (0 bytes).")
    _, _, _, _, entries, directory, _, _ = END.unpack_from(tail, place)
    large = _end_64(file, length - tail_length + place)
    if large is not None:
        # all ones in the small record refer to the large one; otherwise take the larger value
        entries = large[0] if entries == 0xFFFF else max(entries, large[0])
        directory = large[1] if directory == 0xFFFFFFFF else max(directory, large[1])
    if entries > MAX_ENTRIES or directory > MAX_DIRECTORY_BYTES:
        raise ArchiveRefused(TOO_MANY)


def _end_64(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """(entries, directory bytes) of the ZIP64 end record before `end`; None if there is none."""
    place = end - END_LOCATOR_64.size
    if place < 0:
        return None
    file.seek(place)
    mark, _, offset, _ = END_LOCATOR_64.unpack(file.read(END_LOCATOR_64.size))
    if mark != b"PK\6\7":
        return None
    found = []
    # readers differ: some follow the locator, others read the record just before it
    for start in {offset, place - END_64.size}:
        if 0 <= start <= place - END_64.size:
            file.seek(start)
            record = END_64.unpack(file.read(END_64.size))
            if record[0] == b"PK\6\6":
                found.append((record[7], record[8]))
    if not found:
        return None
    return max(entries for entries, _ in found), max(directory for _, directory in found)
