"""Uploaded files on their way in: pictures checked and stored, captions paired, zips unpacked.

Knows no database. A few files at a time, so that memory and disk stay flat however many come; what
one file does wrong costs that file alone.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from app.registry.datasets import captions
from app.registry.datasets.archive import Archive, ArchiveRefused, Member, MemberRefused, is_clutter
from app.registry.datasets.captions import CaptionRefused, FileCaption
from app.registry.datasets.images import MAX_FILE_BYTES, TOO_BIG, ImageDecoder, PictureRefused
from app.registry.storage.store import CHUNK, BlobStore, sentence_when_full
from app.registry.uploads import UploadedFile

PICTURES_AT_ONCE = 4  # threads; decoding has its own, smaller limit
PICTURES_WAITING = 8  # spooled files of one upload, decoding or waiting for it

Place = tuple[str, str]  # folder, stem: where a picture and its caption meet


@dataclass(frozen=True)
class NewImage:
    """A picture that passed and is stored; `sha256` is of the uploaded bytes, its identity."""

    filename: str
    sha256: str
    clean_sha256: str  # of the clean PNG
    thumbnail_sha256: str
    width: int
    height: int
    size_bytes: int  # of the uploaded file
    caption: str | None = None
    note: str | None = None


@dataclass
class IntakeResult:
    """What became of every file of an upload."""

    accepted: list[NewImage] = field(default_factory=list)
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
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with (
        sentence_when_full(),
        tempfile.TemporaryDirectory(prefix="upload-", dir=scratch) as folder,
        _Intake(decoder, store, Path(folder)) as intake,
    ):
        for number, file in enumerate(files):
            intake.take_file(file, group=f"{number}:")
        return intake.finish()


@dataclass
class _FoundCaption:
    place: Place
    source: str  # the file it came in, as shown to people
    stem: str
    text: str


@dataclass
class _SentPicture:
    filename: str
    place: Place
    sha256: str


class _Intake:
    """The state of one upload while its files come.

    Files are read one after the other; their pictures are decoded and stored a few at a time,
    because half of that is waiting for disks.
    """

    def __init__(self, decoder: ImageDecoder, store: BlobStore, folder: Path) -> None:
        self.result = IntakeResult()
        self._decoder = decoder
        self._store = store
        self._folder = folder
        self._sent: list[_SentPicture] = []
        self._pictures: dict[str, Future[NewImage]] = {}  # by hash of the bytes sent
        self._captions: list[_FoundCaption] = []
        self._by_hash: dict[str, int] = {}  # place in `accepted`
        self._by_place: dict[Place, int] = {}
        self._by_stem: dict[str, set[int]] = {}
        self._refused_stems: set[str] = set()
        self._threads = ThreadPoolExecutor(PICTURES_AT_ONCE, thread_name_prefix="intake")
        self._free_places = threading.Semaphore(PICTURES_WAITING)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

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
        place = folder, captions.stem_of(filename).casefold()
        source = self._folder / f"source-{len(self._sent)}"
        try:
            sha256, size = _spool(chunks, source)
        except PictureRefused as refusal:
            source.unlink()
            self._reject_picture(filename, refusal.detail)
            return
        self._sent.append(_SentPicture(filename, place, sha256))
        if sha256 in self._pictures:
            source.unlink()
            return
        self._free_places.acquire()
        if self._failure is not None:
            raise self._failure
        self._pictures[sha256] = self._threads.submit(
            self._store_picture, filename, source, sha256, size
        )

    def _store_picture(self, filename: str, source: Path, sha256: str, size: int) -> NewImage:
        """Decode and store one picture, in a thread."""
        try:
            decoded = self._decoder.decode(source, self._folder)
            clean = self._store.put_file(decoded.clean)
            thumbnail = self._store.put_file(decoded.thumbnail)
            decoded.clean.unlink()
            decoded.thumbnail.unlink()
        except PictureRefused:
            raise
        except BaseException as error:  # a full disk: the next pictures need not be tried
            self._failure = error
            raise
        finally:
            source.unlink()
            self._free_places.release()
        return NewImage(
            filename=filename,
            sha256=sha256,
            clean_sha256=clean.sha256,
            thumbnail_sha256=thumbnail.sha256,
            width=decoded.width,
            height=decoded.height,
            size_bytes=size,
            note=decoded.note,
        )

    def _reject_picture(self, filename: str, reason: str) -> None:
        self.result.rejected.append((filename, reason))
        if not captions.is_caption(filename):
            self._refused_stems.add(captions.stem_of(filename).casefold())

    def finish(self) -> IntakeResult:
        """Wait for the pictures, then give every caption to its own."""
        for sent in self._sent:
            try:
                self._accept(sent, self._pictures[sent.sha256].result())
            except PictureRefused as refusal:
                self._reject_picture(sent.filename, refusal.detail)
        for found in self._captions:
            reason = self._give(found) if found.text else None
            if reason is not None:
                self.result.rejected.append((found.source, reason))
        return self.result

    def _accept(self, sent: _SentPicture, taken: NewImage) -> None:
        index = self._by_hash.get(sent.sha256)
        if index is None:
            index = self._by_hash[sent.sha256] = len(self.result.accepted)
            self.result.accepted.append(taken)
        else:
            self.result.repeated.append((sent.filename, taken.filename))
        self._by_place.setdefault(sent.place, index)
        self._by_stem.setdefault(sent.place[1], set()).add(index)

    def _give(self, found: _FoundCaption) -> str | None:
        """Hand the caption over; else the reason why it could not be used."""
        index = self._by_place.get(found.place)
        if index is None:
            # not beside its picture, but perhaps in a folder of captions or beside a zip
            elsewhere = self._by_stem.get(found.place[1], set())
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
