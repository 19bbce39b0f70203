"""Processes uploaded files: checks and stores images, pairs captions, unpacks zip archives.

It does not use the database. Captions are read first, so each image comes with its own as soon as
it is decoded. A few images are processed at a time to bound memory and disk usage; a bad file only
affects itself.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from app.registry.archive import Archive, ArchiveRefused, MemberRefused, is_clutter
from app.registry.datasets import captions
from app.registry.datasets.captions import CaptionRefused, Refusal
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.sent_files import metadata_lines
from app.registry.datasets.sent_files.metadata_lines import (
    DATASET_NAME,
    MAX_METADATA_BYTES,
    DatasetFacts,
    FileCaption,
    ImageFacts,
)
from app.registry.datasets.sent_files.pairing import CaptionPairing, PairedCaptions
from app.registry.file_names import clean_filename, folder_of
from app.registry.images.decoder import MAX_PNG_BYTES, ImageDecoder, ImageRefused, refuse_larger
from app.registry.storage.store import CHUNK, BlobStore, translate_full_disk
from app.registry.tables.datasets import MAX_REPEATS
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile

IMAGES_AT_ONCE = 4  # threads; decoding has its own, smaller limit
PICTURES_WAITING = 8  # files of one upload that are decoded or waiting to be
REPEATS_FOLDER = re.compile(r"(\d{1,6})_")  # of kohya's scripts: `10_ink` is used 10 times


KnownImages = Mapping[str, Sequence[NewImage]]
"""The undamaged images of a dataset by the hash of their clean PNG: they need no decoding."""


@dataclass
class IntakeResult:
    """The result of an upload, file by file."""

    accepted: list[NewImage] = field(default_factory=list)
    captions_without_image: dict[str, PairedCaptions] = field(default_factory=dict)  # by stem
    rejected: list[Refusal] = field(default_factory=list)
    repeated: list[tuple[str, NewImage]] = field(default_factory=list)  # file name, its equal
    about: DatasetFacts = field(default_factory=DatasetFacts)


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
    with Intake(decoder, store, scratch) as intake:
        intake.read_names(files)
        intake.result.accepted += intake.images()
        return intake.result


@dataclass
class _SentFile:
    """A file of an upload by its name; an image that was read also has its hash and the result."""

    filename: str
    folder: str
    read: Callable[[], Iterator[bytes]]
    archive: str | None = None
    sha256: str = field(init=False)
    stored: Future[NewImage] | NewImage = field(init=False)


class Intake:
    """One upload, to use with `with`: `read_names`, then all of `images`, then `result`.

    Files are read one after another; images are decoded and stored a few at a time in threads,
    because half of the time is spent waiting for disks. `known` are images that are there already.
    """

    def __init__(
        self,
        decoder: ImageDecoder,
        store: BlobStore,
        scratch: Path,
        *,
        known: KnownImages | None = None,
    ) -> None:
        self.result = IntakeResult()
        self._decoder = decoder
        self._store = store
        self._scratch = scratch
        self._known = known or {}
        self._identities = {one.sha256: one for known in self._known.values() for one in known}
        self._pairing = CaptionPairing()
        self._images: list[_SentFile] = []
        self._broken: set[str] = set()  # archives that cannot be read any further
        self._by_bytes: dict[str, Future[NewImage]] = {}  # by hash of what was sent
        self._by_identity: dict[str, NewImage] = {}  # those accepted
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(translate_full_disk())
        self._folder = self._open.enter_context(temporary_folder(self._scratch, "upload-"))
        self._threads = ThreadPoolExecutor(IMAGES_AT_ONCE, thread_name_prefix="intake")
        self._open.callback(self._threads.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._open.__exit__(*error)  # type: ignore[arg-type]

    @property
    def total(self) -> int:
        """Number of images that were sent."""
        return len(self._images)

    def stored(self) -> Iterator[NewImage]:
        """All images that were stored, also those that were not accepted yet; after the block."""
        for future in self._by_bytes.values():
            if not future.cancelled() and future.exception() is None:
                yield future.result()

    def read_names(self, files: Sequence[UploadedFile]) -> None:
        """Read the names of all files, and all captions."""
        for number, file in enumerate(files):
            filename = clean_filename(file.filename)
            if is_clutter(file.filename):
                continue
            if filename.lower().endswith(".zip"):
                self._read_archive(filename, file, group=f"{number}:")
            else:
                folder = folder_of(file.filename)
                read = partial(_read_chunks, file)
                self._announce(_SentFile(filename, folder, read))
        self._pairing.settle()
        self.result.captions_without_image |= self._pairing.without_image
        self.result.rejected += self._pairing.refused

    def _read_archive(self, filename: str, file: UploadedFile, group: str) -> None:
        """`group` separates the folders of different archives."""
        try:
            packed = self._open.enter_context(file.open())
            archive = self._open.enter_context(Archive(packed, max_entry_bytes=MAX_PNG_BYTES))
            members = list(archive.members())
            if not members:
                self.result.rejected.append(Refusal(filename, "The archive has no files."))
            for member in members:
                read = partial(archive.read, member)
                folder = group + member.folder
                self._announce(_SentFile(member.filename, folder, read, filename))
        except ArchiveRefused as refusal:
            self._break(filename, refusal)

    def _break(self, archive: str, refusal: ArchiveRefused) -> None:
        self._broken.add(archive)
        self.result.rejected.append(Refusal(archive, refusal.detail))

    def _announce(self, file: _SentFile) -> None:
        name = file.filename
        try:
            if metadata_lines.is_metadata(name):
                self._take_metadata(file, _read_limited(file.read(), MAX_METADATA_BYTES))
            elif captions.is_caption(name):
                data = _read_limited(file.read(), captions.MAX_TEXT_BYTES)
                self._pairing.add_sidecar(file.folder, name, captions.read_caption(data))
            elif metadata_lines.is_about_export(name):
                self._take_about(name, _read_limited(file.read(), MAX_METADATA_BYTES))
            else:
                self._images.append(file)
                self._pairing.add_image(file.folder, name)
        except (CaptionRefused, MemberRefused) as refusal:
            self.result.rejected.append(Refusal(name, refusal.detail))

    def _take_metadata(self, file: _SentFile, data: bytes) -> None:
        for found in metadata_lines.read_metadata(data):
            if isinstance(found, FileCaption):
                self._pairing.add_line(file.folder, file.filename, found)
            else:
                self.result.rejected.append(Refusal(file.filename, found))

    def _take_about(self, name: str, data: bytes) -> None:
        if name.lower() == DATASET_NAME:
            self.result.about = metadata_lines.read_dataset_facts(data)
        else:
            self.result.rejected += metadata_lines.read_left_out(data)

    def images(
        self, on_image: Callable[[int, str], None] = lambda done, name: None
    ) -> Iterator[NewImage]:
        """The accepted images in the order of their files, each as soon as it is stored.

        `on_image` is called with the number of images that are done and the name of the last one;
        it may raise to stop. Raises StorageFullError.
        """
        waiting: deque[_SentFile] = deque()
        done = 0
        for file in [*self._images, None]:
            if file is not None and self._send(file):
                waiting.append(file)
            elif file is not None:
                done += 1
                on_image(done, file.filename)
            while waiting and (file is None or _is_ready(waiting)):
                sent = waiting.popleft()
                if (image := self._accept(sent)) is not None:
                    yield image
                done += 1
                on_image(done, sent.filename)
        self.result.rejected += self._pairing.left()

    def _send(self, file: _SentFile) -> bool:
        """Read an image and have it stored; False if it cannot be read."""
        if file.archive in self._broken:
            return False
        source = self._folder / f"source-{id(file)}"
        try:
            file.sha256, size = _spool_image(file.read(), source)
        except (ImageRefused, MemberRefused) as refusal:
            self.result.rejected.append(Refusal(file.filename, refusal.detail))
        except ArchiveRefused as refusal:
            self._break(str(file.archive), refusal)
        else:
            file.stored = self._stored(file.filename, source, file.sha256, size)
            return True
        source.unlink(missing_ok=True)
        return False

    def _stored(
        self, filename: str, source: Path, sha256: str, size: int
    ) -> Future[NewImage] | NewImage:
        known = self._known.get(sha256)
        if known and not self._store.exists(sha256):
            self._store.put_file(source)
        sent_before = self._identities.get(sha256)
        if sent_before and not self._store.exists(sent_before.clean_sha256):
            sent_before = None
        if here := known[0] if known else sent_before:
            source.unlink()
            return here
        if sha256 in self._by_bytes:
            source.unlink()
        else:
            self._by_bytes[sha256] = self._threads.submit(
                self._store_image, filename, source, sha256, size
            )
        return self._by_bytes[sha256]

    def _store_image(self, filename: str, source: Path, sha256: str, size: int) -> NewImage:
        """Decode and store one image; runs in a thread."""
        try:
            decoded = self._decoder.decode(source, self._folder)
            clean = self._store.put_file(decoded.clean)
            thumbnail = self._store.put_file(decoded.thumbnail)
            small = self._store.put_file(decoded.small) if decoded.small else None
            for path in decoded.files:
                path.unlink()
        finally:
            source.unlink()
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

    def _accept(self, sent: _SentFile) -> NewImage | None:
        """The image with what is said about it; None if it is refused or was sent twice."""
        name, folder = sent.filename, sent.folder
        try:
            stored = sent.stored.result() if isinstance(sent.stored, Future) else sent.stored
        except ImageRefused as refusal:
            self.result.rejected.append(Refusal(name, refusal.detail))
            return None
        paired = self._pairing.take(folder, name)
        image = replace(
            self._identified(stored, sent.sha256, paired.facts),
            caption=paired.caption.text or None,
            caption_file=paired.caption.file or None,
            unused_captions=paired.unused,
            facts=self._with_repeats(paired.facts, folder, name),
            facts_file=paired.facts_file,
        )
        first = self._by_identity.setdefault(image.sha256, image)
        if first is image:
            return image
        others = [one for one in (paired.caption, *paired.unused) if one.text]
        self.result.repeated.append((name, replace(first, unused_captions=tuple(others))))
        return None

    def _identified(self, stored: NewImage, sent_sha256: str, facts: ImageFacts) -> NewImage:
        """The image under its identity: that of the file it was first uploaded as.

        An export says so, and is believed only about its own bytes: the clean image it names has
        to be the file that was sent, and no other image of the dataset may have this identity.
        """
        if facts.sha256 is None or facts.clean_sha256 != sent_sha256:
            return stored
        here = self._identities.get(facts.sha256)
        if here is not None:
            # another version of the decoder may write other bytes
            return here if here.clean_sha256 in (sent_sha256, stored.clean_sha256) else stored
        return replace(stored, sha256=facts.sha256, filename=facts.filename or stored.filename)

    def _with_repeats(self, facts: ImageFacts, folder: str, name: str) -> ImageFacts:
        """The facts with the repeats that the name of the image's folder gives."""
        found = REPEATS_FOLDER.match(folder.rpartition(":")[2].rpartition("/")[2])
        if found is None or facts.repeats is not None:
            return facts
        repeats = int(found[1])
        if not 1 <= repeats <= MAX_REPEATS:
            reason = f"Its folder asks for {repeats:,} repeats; 1 to {MAX_REPEATS} are possible."
            self.result.rejected.append(Refusal(f"{name} (repeats)", reason))
        return replace(facts, repeats=min(max(repeats, 1), MAX_REPEATS))


def _is_ready(waiting: deque[_SentFile]) -> bool:
    """True if the first of them is stored, or so many wait that it has to be waited for."""
    first = waiting[0].stored
    return not isinstance(first, Future) or first.done() or len(waiting) >= PICTURES_WAITING


def _read_chunks(file: UploadedFile) -> Iterator[bytes]:
    with file.open() as opened:
        while chunk := opened.read(CHUNK):
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
    size, start = 0, b""
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            start = start or chunk
            refuse_larger(size, start)
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest(), size
