"""The files in an uploaded zip, read with bounded time, memory and disk.

Nothing is extracted by its name. The directory is measured before Python's reader parses it (a
list of 100,000 names costs a second and 100 MB), sizes are counted as the bytes come, never
believed, and only the two harmless compressions are read (LZMA may ask for gigabytes).
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

from app.registry.datasets.captions import clean_filename, folder_of
from app.registry.errors import InvalidInput
from app.registry.wording import size_text

MAX_ENTRIES = 2_000
MAX_ENTRY_BYTES = 60_000_000
MAX_TOTAL_BYTES = 2_200_000_000
MAX_RATIO = 100
RATIO_FLOOR = 1 << 20  # bytes: below it a good ratio is just a small plain picture
MAX_DIRECTORY_BYTES = MAX_ENTRIES * 1_024  # names, extra fields, comments
CHUNK = 1 << 18

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".cbz")
CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})

END = struct.Struct("<4s4H2LH")  # end of central directory, APPNOTE 4.3.16
END_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15
END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
MAX_COMMENT = 1 << 16

BROKEN = "The zip archive is damaged or cut off. Make it anew."
TOO_MANY = f"The zip archive has more than {MAX_ENTRIES:,} entries. Split it into smaller ones."


class ArchiveRefused(InvalidInput):
    """The whole archive is not read any further; the sentence says why."""

    code = "archive_refused"


class MemberRefused(InvalidInput):
    """One file of the archive is not taken; the sentence says why."""

    code = "archive_member_refused"


@dataclass(frozen=True)
class Member:
    """A file in an archive: a name to show, and the folder it lay in, to pair captions by."""

    filename: str
    folder: str
    info: zipfile.ZipInfo


def is_clutter(path: str) -> bool:
    """Whether the file is what systems leave behind in folders, and nobody meant to send."""
    parts = path.replace("\\", "/").split("/")
    name = parts[-1].lower()
    return "__MACOSX" in parts or name in CLUTTER or name.startswith("._")


def is_hidden(path: str) -> bool:
    """Whether the file or a folder above it begins with a dot."""
    parts = path.replace("\\", "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


class Archive:
    """An opened zip. Use `with`; raises ArchiveRefused when it is none or has too many entries."""

    def __init__(self, file: IO[bytes]) -> None:
        _refuse_crowded(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
            raise ArchiveRefused(BROKEN) from None
        if len(self._zip.infolist()) > MAX_ENTRIES:  # the end record lied
            self._zip.close()
            raise ArchiveRefused(TOO_MANY)
        self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def members(self) -> Iterator[Member]:
        """The files in the order they were packed, without folders and systems' clutter."""
        for info in self._zip.infolist():
            name = info.filename
            if not info.is_dir() and not is_clutter(name) and not is_hidden(name):
                yield Member(clean_filename(info.filename), folder_of(info.filename), info)

    def read(self, member: Member) -> Iterator[bytes]:
        """The bytes of one file in chunks.

        Raises MemberRefused (at once or on the way: throw away what came) or, when the archive
        unpacks to too much in total, ArchiveRefused.
        """
        info = member.info
        _refuse_member(info)
        size = 0
        try:
            with self._zip.open(info) as packed:
                while chunk := packed.read(CHUNK):
                    size += len(chunk)
                    self._count(size, len(chunk), info)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error):
            # a wrong CRC, a cut, a header that contradicts the directory, a forged size
            raise MemberRefused(
                "The file is damaged inside the archive: its checksum or size is wrong."
            ) from None
        except (RuntimeError, NotImplementedError, ValueError, OSError):
            raise MemberRefused("The file cannot be unpacked. Make the archive anew.") from None

    def _count(self, size: int, step: int, info: zipfile.ZipInfo) -> None:
        self._total += step
        if self._total > MAX_TOTAL_BYTES:
            raise ArchiveRefused(
                f"The zip archive unpacks to more than {size_text(MAX_TOTAL_BYTES)}; "
                "the rest of it was not read. Split it into smaller ones."
            )
        if size > MAX_ENTRY_BYTES:
            raise MemberRefused(f"The file is larger than {size_text(MAX_ENTRY_BYTES)}.")
        if size > RATIO_FLOOR and size > MAX_RATIO * max(info.compress_size, 1):
            raise MemberRefused(
                f"The file unpacks to more than {MAX_RATIO} times its size, as zip bombs do."
            )


def _refuse_member(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise MemberRefused("The file is encrypted. Make the archive without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise MemberRefused("This is a link or device, not a file.")
    if info.filename.lower().endswith(ARCHIVE_SUFFIXES):
        raise MemberRefused("This is an archive inside an archive. Unpack it first.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MemberRefused(
            "The file is packed in an unusual way. Make the archive with plain zip compression."
        )
    if info.file_size > MAX_ENTRY_BYTES:
        raise MemberRefused(f"The file is larger than {size_text(MAX_ENTRY_BYTES)}.")


def _refuse_crowded(file: IO[bytes]) -> None:
    """Read the end records alone; refuse before the directory is parsed when it is too large.

    What they say may be a lie, but the reader parses no more than the size they give.
    """
    file.seek(0, 2)
    length = file.tell()
    tail_length = min(length, END.size + MAX_COMMENT)
    file.seek(length - tail_length)
    tail = file.read(tail_length)
    # the same places in the same order as zipfile looks: no comment first, then the last mark
    place = len(tail) - END.size
    if place < 0 or tail[place : place + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < END.size:
        raise ArchiveRefused(BROKEN if tail else "The zip archive is empty (0 bytes).")
    _, _, _, _, entries, directory, _, _ = END.unpack_from(tail, place)
    large = _end_64(file, length - tail_length + place)
    if large is not None:
        # all ones in the small record mean: see the large one; else the worse of both is meant
        entries = large[0] if entries == 0xFFFF else max(entries, large[0])
        directory = large[1] if directory == 0xFFFFFFFF else max(directory, large[1])
    if entries > MAX_ENTRIES or directory > MAX_DIRECTORY_BYTES:
        raise ArchiveRefused(TOO_MANY)


def _end_64(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """Entries and directory bytes by the ZIP64 end record before `end`; None without one."""
    place = end - END_LOCATOR_64.size
    if place < 0:
        return None
    file.seek(place)
    mark, _, offset, _ = END_LOCATOR_64.unpack(file.read(END_LOCATOR_64.size))
    if mark != b"PK\6\7":
        return None
    found = []
    # where the locator points, and just before it: readers differ in which they believe
    for start in {offset, place - END_64.size}:
        if 0 <= start <= place - END_64.size:
            file.seek(start)
            record = END_64.unpack(file.read(END_64.size))
            if record[0] == b"PK\6\6":
                found.append((record[7], record[8]))
    if not found:
        return None
    return max(entries for entries, _ in found), max(directory for _, directory in found)
