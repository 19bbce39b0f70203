"""Processes uploaded files: checks and stores images, pairs captions, unpacks zip archives.

It does not use the database. A few files are processed at a time to bound memory and disk usage;
a bad file only affects itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

from app.registry.datasets import captions
from app.registry.datasets.archive import Archive, ArchiveRefused, Member, MemberRefused, is_clutter
from app.registry.datasets.captions import CaptionFromFile, CaptionRefused, FileCaption
from app.registry.datasets.images import MAX_FILE_BYTES, TOO_BIG, ImageDecoder, ImageRefused
from app.registry.storage.store import CHUNK, BlobStore, translate_full_disk
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile

IMAGES_AT_ONCE = 4  # threads; decoding has its own, smaller limit
PICTURES_WAITING = 8  # files of one upload that are decoded or waiting to be

Place = tuple[str, str]  # folder, stem: the key for pairing images and captions


@dataclass(frozen=True)
class NewImage:
    """An accepted and stored image; `sha256` is the hash of the uploaded file, its identity."""

    filename: str
    sha256: str
    clean_sha256: str  # of the clean PNG
    thumbnail_sha256: str
    width: int
    height: int
    size_bytes: int  # of the uploaded file
    caption: str | None = None
    caption_file: str | None = None
    note: str | None = None
    small_sha256: str | None = None  # of the small thumbnail; None: the thumbnail is small enough
    measured: dict[str, Any] = field(default_factory=dict)  # by the columns of `image_measure`


@dataclass
class IntakeResult:
    """The result of an upload, file by file."""

    accepted: list[NewImage] = field(default_factory=list)
    captions_without_image: dict[str, CaptionFromFile] = field(default_factory=dict)  # by stem
    rejected: list[tuple[str, str]] = field(default_factory=list)  # file name, reason
    repeated: list[tuple[str, str]] = field(default_factory=list)  # file name, name of its equal


def take_in(
    files: Sequence[UploadedFile],
    *,
    decoder: ImageDecoder,
    store: BlobStore,
    scratch: Path,
) -> IntakeResult:
    """Check and store the uploaded files; refused files are in `rejected` with a reason.

    Identical files in one upload are one image. The blobs are stored; the caller writes the rows.
    Raises StorageFullError on a full disk, but never because of a file's content.
    """
    with (
        translate_full_disk(),
        temporary_folder(scratch, "upload-") as folder,
        _Intake(decoder, store, folder) as intake,
    ):
        for number, file in enumerate(files):
            intake.take_file(file, group=f"{number}:")
        return intake.finish()


@dataclass
class _FoundCaption:
    place: Place
    source: str  # the file it came from, as shown to users
    stem: str
    text: str


@dataclass
class _UploadedImage:
    filename: str
    place: Place
    sha256: str


class _Intake:
    """The state of one upload.

    Files are read one after another; images are decoded and stored a few at a time in threads,
    because half of the time is spent waiting for disks.
    """

    def __init__(self, decoder: ImageDecoder, store: BlobStore, folder: Path) -> None:
        self.result = IntakeResult()
        self._decoder = decoder
        self._store = store
        self._folder = folder
        self._sent: list[_UploadedImage] = []
        self._images: dict[str, Future[NewImage]] = {}  # by hash of the bytes sent
        self._captions: list[_FoundCaption] = []
        self._by_hash: dict[str, int] = {}  # place in `accepted`
        self._by_place: dict[Place, int] = {}
        self._by_stem: dict[str, set[int]] = {}
        self._refused_stems: set[str] = set()
        self._threads = ThreadPoolExecutor(IMAGES_AT_ONCE, thread_name_prefix="intake")
        self._free_places = threading.Semaphore(PICTURES_WAITING)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def take_file(self, file: UploadedFile, *, group: str) -> None:
        """Process one uploaded file; `group` separates the folders of different archives."""
        filename = captions.clean_filename(file.filename)
        if is_clutter(file.filename):
            return
        if not filename.lower().endswith(".zip"):
            chunks = _read_chunks(file.content)
            self._process_file(filename, captions.folder_of(file.filename), chunks)
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
            self._process_file(member.filename, group + member.folder, archive.read(member))
        except MemberRefused as refusal:
            self._reject_image(member.filename, refusal.detail)

    def _process_file(self, filename: str, folder: str, chunks: Iterable[bytes]) -> None:
        if captions.is_metadata(filename):
            self._take_metadata(
                filename, folder, _read_limited(chunks, captions.MAX_METADATA_BYTES)
            )
        elif captions.is_caption(filename):
            self._take_caption(filename, folder, _read_limited(chunks, captions.MAX_TEXT_BYTES))
        else:
            self._take_image(filename, folder, chunks)

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
                place = (_join_path(folder, found.folder), stem.casefold())
                self._captions.append(_FoundCaption(place, filename, stem, found.text))
            else:
                self.result.rejected.append((filename, found))

    def _take_image(self, filename: str, folder: str, chunks: Iterable[bytes]) -> None:
        place = folder, captions.stem_of(filename).casefold()
        source = self._folder / f"source-{len(self._sent)}"
        try:
            sha256, size = _spool_image(chunks, source)
        except ImageRefused as refusal:
            source.unlink()
            self._reject_image(filename, refusal.detail)
            return
        self._sent.append(_UploadedImage(filename, place, sha256))
        if sha256 in self._images:
            source.unlink()
            return
        self._free_places.acquire()
        if self._failure is not None:
            raise self._failure
        self._images[sha256] = self._threads.submit(
            self._store_image, filename, source, sha256, size
        )

    def _store_image(self, filename: str, source: Path, sha256: str, size: int) -> NewImage:
        """Decode and store one image; runs in a thread."""
        try:
            decoded = self._decoder.decode(source, self._folder)
            clean = self._store.put_file(decoded.clean)
            thumbnail = self._store.put_file(decoded.thumbnail)
            small = self._store.put_file(decoded.small) if decoded.small else None
            for path in decoded.files:
                path.unlink()
        except ImageRefused:
            raise
        except BaseException as error:  # a full disk: skip the remaining images
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
            small_sha256=small.sha256 if small else None,
            measured=decoded.measured,
        )

    def _reject_image(self, filename: str, reason: str) -> None:
        self.result.rejected.append((filename, reason))
        if not captions.is_caption(filename):
            self._refused_stems.add(captions.stem_of(filename).casefold())

    def finish(self) -> IntakeResult:
        """Wait for the images, then assign the captions."""
        for sent in self._sent:
            try:
                self._accept_image(sent, self._images[sent.sha256].result())
            except ImageRefused as refusal:
                self._reject_image(sent.filename, refusal.detail)
        for found in self._captions:
            reason = self._assign_caption(found) if found.text else None
            if reason is not None:
                self.result.rejected.append((found.source, reason))
        return self.result

    def _accept_image(self, sent: _UploadedImage, taken: NewImage) -> None:
        index = self._by_hash.get(sent.sha256)
        if index is None:
            index = self._by_hash[sent.sha256] = len(self.result.accepted)
            self.result.accepted.append(taken)
        else:
            self.result.repeated.append((sent.filename, taken.filename))
        self._by_place.setdefault(sent.place, index)
        self._by_stem.setdefault(sent.place[1], set()).add(index)

    def _assign_caption(self, found: _FoundCaption) -> str | None:
        """Assign a caption to its image; return the reason if that is not possible."""
        index = self._by_place.get(found.place)
        if index is None:
            # not next to its image, but maybe in a folder of captions or next to an archive
            elsewhere = self._by_stem.get(found.place[1], set())
            if len(elsewhere) > 1:
                return (
                    f"More than one image is named “{found.stem}”. "
                    "Put the caption next to its image."
                )
            if not elsewhere:
                return self._keep_caption(found)
            (index,) = elsewhere
        image = self.result.accepted[index]
        if image.caption is not None and image.caption != found.text:
            return f"The image “{image.filename}” already has a caption from another file."
        self.result.accepted[index] = replace(image, caption=found.text, caption_file=found.source)
        return None

    def _keep_caption(self, found: _FoundCaption) -> str | None:
        if found.stem.casefold() in self._refused_stems:
            return f"Its image “{found.stem}” was refused."
        self.result.captions_without_image.setdefault(
            found.stem, CaptionFromFile(found.text, found.source)
        )
        return None


def _read_chunks(content: Path | IO[bytes]) -> Iterator[bytes]:
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield from _read_chunks(file)
        return
    content.seek(0)
    while chunk := content.read(CHUNK):
        yield chunk


def _read_limited(chunks: Iterable[bytes], limit: int) -> bytes:
    """Read up to one chunk more than `limit` bytes, so that callers can detect longer files."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > limit:
            break
    return bytes(data)


def _spool_image(chunks: Iterable[bytes], target: Path) -> tuple[str, int]:
    """Write an image file; return (hash, size). Raises ImageRefused over the limit."""
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise ImageRefused(TOO_BIG)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest(), size


def _join_path(folder: str, inner: str) -> str:
    if not inner:
        return folder
    return folder + inner if folder == "" or folder.endswith(":") else f"{folder}/{inner}"
