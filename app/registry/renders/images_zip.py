"""A ZIP archive of the images of renders, made while it is read: nothing is stored on the way."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from app.registry.errors import NotFound, TooLarge
from app.registry.renders.chosen import chosen_renders, require_finished
from app.registry.renders.listing import images_of
from app.registry.storage.store import BlobStore
from app.registry.wording import size_text

MAX_ZIP_BYTES = 1_000_000_000
CHUNK = 1 << 18
FIRST_YEAR = 1980  # of times in a ZIP archive


@dataclass(frozen=True)
class ZipEntry:
    """A file of the archive: its name, the blob with its content, and its local time."""

    name: str
    sha256: str
    size: int
    time: tuple[int, int, int, int, int, int]


def zip_entries(session: Session, store: BlobStore, render_ids: Sequence[int]) -> list[ZipEntry]:
    """The images of these renders as `brushwork-<id>.png`, more of one as `brushwork-<id>-2.png`.

    Raises what `chosen_renders` and `require_finished` do, NotFound or BlobDamaged for an image
    whose file is lost or damaged, and TooLarge over `MAX_ZIP_BYTES`.
    """
    renders = chosen_renders(session, render_ids)
    require_finished(renders)
    images = images_of(session, renders)
    entries, total = [], 0
    for render in renders:
        if not images[render.key]:
            raise NotFound(f"Image {render.key} has no file. Leave it out.")
        made = render.finished_at or render.created_at
        for image in images[render.key]:
            number = f"-{image.index + 1}" if image.index else ""
            size = store.checked_stat(image.sha256).size
            total += size
            if total > MAX_ZIP_BYTES:
                raise TooLarge(
                    f"These images have more than {size_text(MAX_ZIP_BYTES)}. Choose fewer and "
                    "download them in parts."
                )
            time = (max(made.year, FIRST_YEAR), *made.timetuple()[1:6])
            entries.append(
                ZipEntry(f"brushwork-{render.key}{number}.png", image.sha256, size, time)
            )
    return entries


def zip_chunks(store: BlobStore, entries: Sequence[ZipEntry]) -> Iterator[bytes]:
    """The archive in chunks; images are compressed already, so they are only put together."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, entry.time)
            info.file_size = entry.size
            with store.open(entry.sha256) as blob, archive.open(info, "w") as file:
                while chunk := blob.read(CHUNK):
                    file.write(chunk)
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
        """What was written since the last time."""
        taken, self._chunks = b"".join(self._chunks), []
        return taken
