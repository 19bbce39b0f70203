"""A ZIP archive of the images of renders, made while it is read: nothing is stored on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from app.registry.errors import NotFound, TooLarge
from app.registry.renders.listing import images_of
from app.registry.renders.selection import chosen_renders, require_finished
from app.registry.storage.store import BlobStore, blob_chunks
from app.registry.wording import size_text
from app.registry.zip_stream import StreamedFile, archive_chunks

MAX_ZIP_BYTES = 1_000_000_000


@dataclass(frozen=True)
class ZipEntry:
    """A file of the archive: its name, the blob with its content, and its time."""

    name: str
    sha256: str
    size: int
    time: datetime


@dataclass(frozen=True)
class NamedImage:
    """An image with its name in the archive."""

    name: str
    sha256: str
    time: datetime


def named_images(session: Session, render_ids: Sequence[int]) -> list[NamedImage]:
    """The images of these renders as `brushwork-<id>.png`, more of one as `brushwork-<id>-2.png`.

    Raises what `chosen_renders` and `require_finished` do, and NotFound.
    """
    renders = chosen_renders(session, render_ids)
    require_finished(renders)
    images = images_of(session, renders)
    named = []
    for render in renders:
        if not images[render.key]:
            raise NotFound(f"Image {render.key} has no file. Leave it out.")
        made = render.finished_at or render.created_at
        for image in images[render.key]:
            number = f"-{image.index + 1}" if image.index else ""
            named.append(NamedImage(f"brushwork-{render.key}{number}.png", image.sha256, made))
    return named


def zip_entries(store: BlobStore, images: Sequence[NamedImage]) -> list[ZipEntry]:
    """The files of the archive; a slow storage is asked outside of a transaction.

    Raises BlobNotFound or BlobDamaged for an image whose file is lost or damaged, and TooLarge over
    `MAX_ZIP_BYTES`.
    """
    entries, total = [], 0
    for image in images:
        size = store.checked_stat(image.sha256).size
        total += size
        if total > MAX_ZIP_BYTES:
            raise TooLarge(
                f"These images have more than {size_text(MAX_ZIP_BYTES)}. Choose fewer and "
                "download them in parts."
            )
        entries.append(ZipEntry(image.name, image.sha256, size, image.time))
    return entries


def zip_chunks(store: BlobStore, entries: Sequence[ZipEntry]) -> Iterator[bytes]:
    """The archive in chunks; images are compressed already, so they are only put together."""
    return archive_chunks(
        StreamedFile(entry.name, entry.time, entry.size, blob_chunks(store, entry.sha256))
        for entry in entries
    )
