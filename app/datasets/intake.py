"""Uploaded files on their way in: pictures checked and stored, captions paired, zips unpacked.

Knows no database. File after file, so that memory and disk stay flat however many come; what one
file does wrong costs that file alone.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from app.datasets import captions
from app.datasets.archive import (
    Archive,
    ArchiveRefused,
    Member,
    MemberRefused,
    is_clutter,
)
from app.datasets.captions import CaptionRefused, FileCaption
from app.datasets.images import MAX_FILE_BYTES, TOO_BIG, ImageDecoder, PictureRefused
from app.storage import CHUNK, BlobStore, sentence_when_full

Place = tuple[str, str]  # folder, stem: where a picture and its caption meet


@dataclass(frozen=True)
class UploadedFile:
    """One file as it was sent: its name, which is never trusted, and its bytes."""

    filename: str
    content: Path | IO[bytes]


@dataclass(frozen=True)
class TakenImage:
    """A picture that passed and is stored; `sha256` is of the uploaded bytes, its identity."""

    filename: str
    sha256: str
    width: int
    height: int
    blob_sha256: str  # the clean PNG
    thumbnail_sha256: str
    size_bytes: int  # of the uploaded file
    caption: str | None = None
    note: str | None = None


@dataclass
class IntakeResult:
    """What became of every file of an upload."""

    accepted: list[TakenImage] = field(default_factory=list)
    captions_without_picture: dict[str, str] = field(default_factory=dict)  # stem -> text
    rejected: list[tuple[str, str]] = field(default_factory=list)  # file name, reason
    repeated: list[tuple[str, str]] = field(default_factory=list)  # file name, name of its equal


def take_in(
    files: Sequence[UploadedFile],
    *,
    decoder: ImageDecoder,
    store: BlobStore,
    scratch: Path | None = None,
) -> IntakeResult:
    """Check and store what was sent; every file not taken is in `rejected` with its reason.

    The same bytes twice in one upload are one picture. Blobs are stored before this returns, rows
    are the caller's. Raises StorageFullError when there is no room, and for nothing a file holds.
    """
    with (
        sentence_when_full(),
        tempfile.TemporaryDirectory(prefix="upload-", dir=scratch) as folder,
    ):
        intake = _Intake(decoder, store, Path(folder))
        for number, file in enumerate(files):
            intake.take_file(file, group=f"{number}:")
    intake.pair()
    return intake.result


@dataclass
class _FoundCaption:
    place: Place
    source: str  # the file it came in, as shown to people
    stem: str
    text: str


class _Intake:
    """The state of one upload while its files come."""

    def __init__(self, decoder: ImageDecoder, store: BlobStore, folder: Path) -> None:
        self.result = IntakeResult()
        self._decoder = decoder
        self._store = store
        self._folder = folder
        self._by_hash: dict[str, int] = {}  # place in `accepted`
        self._by_place: dict[Place, int] = {}
        self._by_stem: dict[str, set[int]] = {}
        self._refused_stems: set[str] = set()
        self._captions: list[_FoundCaption] = []

    def take_file(self, file: UploadedFile, *, group: str) -> None:
        """Take one file as sent; `group` keeps the folders of different zips apart."""
        filename = captions.clean_filename(file.filename)
        if is_clutter(file.filename):
            return
        if not filename.lower().endswith(".zip"):
            chunks = _chunks(file.content)
            self._take(filename, captions.folder_of(file.filename), chunks)
        elif isinstance(file.content, Path):
            with file.content.open("rb") as packed:
                self._take_archive(filename, packed, group)
        else:
            self._take_archive(filename, file.content, group)

    def _take_archive(self, filename: str, packed: IO[bytes], group: str) -> None:
        try:
            with Archive(packed) as archive:
                for member in archive.members():
                    self._take_member(archive, member, group)
        except ArchiveRefused as refusal:
            self.result.rejected.append((filename, refusal.detail))

    def _take_member(self, archive: Archive, member: Member, group: str) -> None:
        try:
            self._take(member.filename, group + member.folder, archive.read(member))
        except MemberRefused as refusal:
            self._reject_picture(member.filename, refusal.detail)

    def _take(self, filename: str, folder: str, chunks: Iterable[bytes]) -> None:
        if captions.is_metadata(filename):
            self._take_metadata(filename, folder, _read(chunks, captions.MAX_METADATA_BYTES))
        elif captions.is_caption(filename):
            self._take_caption(filename, folder, _read(chunks, captions.MAX_TEXT_BYTES))
        else:
            self._take_picture(filename, folder, chunks)

    def _take_caption(self, filename: str, folder: str, data: bytes) -> None:
        try:
            text = captions.read_caption(data)
        except CaptionRefused as refusal:
            self.result.rejected.append((filename, refusal.detail))
            return
        stem = captions.pairing_stem(filename)
        self._captions.append(_FoundCaption((folder, stem.casefold()), filename, stem, text))

    def _take_metadata(self, filename: str, folder: str, data: bytes) -> None:
        for found in captions.read_metadata(data):
            if isinstance(found, FileCaption):
                stem = captions.stem_of(found.name)
                place = (_joined(folder, found.folder), stem.casefold())
                self._captions.append(_FoundCaption(place, filename, stem, found.text))
            else:
                self.result.rejected.append((filename, found))

    def _take_picture(self, filename: str, folder: str, chunks: Iterable[bytes]) -> None:
        source = self._folder / "source"
        try:
            sha256, size = _spool(chunks, source)
            index = self._by_hash.get(sha256)
            if index is None:
                index = self._store_picture(filename, source, sha256, size)
            else:
                equal = self.result.accepted[index].filename
                self.result.repeated.append((filename, equal))
        except PictureRefused as refusal:
            self._reject_picture(filename, refusal.detail)
            return
        finally:
            source.unlink(missing_ok=True)
        stem = captions.stem_of(filename).casefold()
        self._by_place.setdefault((folder, stem), index)
        self._by_stem.setdefault(stem, set()).add(index)

    def _store_picture(self, filename: str, source: Path, sha256: str, size: int) -> int:
        decoded = self._decoder.decode(source, self._folder)
        try:
            clean = self._store.put_file(decoded.clean)
            thumbnail = self._store.put_file(decoded.thumbnail)
        finally:
            decoded.clean.unlink()
            decoded.thumbnail.unlink()
        taken = TakenImage(
            filename=filename,
            sha256=sha256,
            width=decoded.width,
            height=decoded.height,
            blob_sha256=clean.sha256,
            thumbnail_sha256=thumbnail.sha256,
            size_bytes=size,
            note=decoded.note,
        )
        self.result.accepted.append(taken)
        return self._by_hash.setdefault(sha256, len(self.result.accepted) - 1)

    def _reject_picture(self, filename: str, reason: str) -> None:
        self.result.rejected.append((filename, reason))
        if not captions.is_caption(filename):
            self._refused_stems.add(captions.stem_of(filename).casefold())

    def pair(self) -> None:
        """Give every caption to its picture, once all files are known."""
        for found in self._captions:
            if found.text:
                reason = self._give(found)
                if reason is not None:
                    self.result.rejected.append((found.source, reason))

    def _give(self, found: _FoundCaption) -> str | None:
        """Hand the caption over; else the reason why it could not be used."""
        key = found.place[1]
        index = self._by_place.get(found.place)
        if index is None:
            # not beside its picture, but perhaps in a folder of captions or beside a zip
            elsewhere = self._by_stem.get(key, set())
            if len(elsewhere) > 1:
                return f"More than one picture is named “{found.stem}”; put it beside its own."
            if not elsewhere:
                return self._keep(found)
            (index,) = elsewhere
        image = self.result.accepted[index]
        if image.caption is not None and image.caption != found.text:
            return f"The picture “{image.filename}” has a caption from another file already."
        self.result.accepted[index] = replace(image, caption=found.text)
        return None

    def _keep(self, found: _FoundCaption) -> str | None:
        if found.stem.casefold() in self._refused_stems:
            return f"Its picture “{found.stem}” was refused."
        self.result.captions_without_picture.setdefault(found.stem, found.text)
        return None


def _chunks(content: Path | IO[bytes]) -> Iterator[bytes]:
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield from _chunks(file)
        return
    content.seek(0)
    while chunk := content.read(CHUNK):
        yield chunk


def _read(chunks: Iterable[bytes], limit: int) -> bytes:
    """At most one chunk more than `limit` bytes: enough to see that there are more."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > limit:
            break
    return bytes(data)


def _spool(chunks: Iterable[bytes], target: Path) -> tuple[str, int]:
    """Write the bytes of a picture; their hash and number. PictureRefused over the limit."""
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise PictureRefused(TOO_BIG)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest(), size


def _joined(folder: str, inner: str) -> str:
    if not inner:
        return folder
    return folder + inner if folder == "" or folder.endswith(":") else f"{folder}/{inner}"
