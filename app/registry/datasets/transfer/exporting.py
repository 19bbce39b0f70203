"""A dataset as a ZIP archive, made while it is read: images byte for byte, captions beside them.

| File | Has |
|---|---|
| `dataset.json` | name and trigger word |
| `NAME.png` | an image as it is stored |
| `NAME.txt` | its first caption, as most programs read it |
| `metadata.jsonl` | everything about each image; Hugging Face reads `file_name` and `text` |
| `left-out.jsonl` | only if a stored image is damaged or missing: what is known about it, and why |
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO

from sqlmodel import Session, select

from app.registry.datasets import service
from app.registry.datasets.captions import PICTURE_SUFFIXES
from app.registry.datasets.sent_files.metadata_lines import (
    DATASET_NAME,
    LEFT_OUT_NAME,
    METADATA_NAME,
    ImageFacts,
)
from app.registry.datasets.several_captions import (
    further_captions,
    kind_captions,
    pinned_captions,
)
from app.registry.datasets.transfer.versions import get_version
from app.registry.db import utcnow
from app.registry.errors import Conflict
from app.registry.file_names import clean_filename
from app.registry.storage.store import CHUNK, BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.zip_stream import StreamedFile, archive_chunks

FORMAT = "brushwork-dataset-1"
SEPARATORS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
MAX_STEM_BYTES = 200  # with a number and a suffix below the 255 of most file systems
UNSAFE = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))
RESERVED = frozenset(
    {"con", "prn", "aux", "nul"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
)
"""Names of devices on Windows, also with a suffix."""


@dataclass(frozen=True, kw_only=True)
class ExportedImage(ImageFacts):
    """An image with everything that was written about it; the first caption is the main one."""

    filename: str
    clean_sha256: str
    width: int
    height: int
    time: datetime


@dataclass(frozen=True)
class Contents:
    """A dataset to export; `version`: the number of the pinned version, None: as it is now."""

    slug: str
    name: str
    trigger_word: str | None
    images: list[ExportedImage]
    time: datetime
    version: int | None = None

    @property
    def filename(self) -> str:
        """The name of its archive."""
        return f"{self.slug}.zip" if self.version is None else f"{self.slug}-{self.version}.zip"


def dataset_contents(session: Session, dataset_id: int) -> Contents:
    """The dataset as it is now, also the images that are set aside. Raises NotFound.

    `session` must be a snapshot, so that images and captions are of one moment.
    """
    dataset = service.get_dataset(session, dataset_id)
    images = service.list_images(session, dataset_id)
    further = further_captions(session, [image.key for image in images])
    exported = [
        ExportedImage(
            filename=image.filename,
            sha256=image.sha256,
            clean_sha256=image.clean_sha256,
            width=image.width,
            height=image.height,
            captions=tuple(
                kind_captions(image, (row for row in further.get(image.key, ()) if row.caption))
            ),
            time=image.created_at,
            repeats=image.repeats,
            never_flip=image.never_flip,
            set_aside=image.set_aside,
            focus=image.focus,
        )
        for image in images
    ]
    return Contents(dataset.slug, dataset.name, dataset.trigger_word, exported, utcnow())


def version_contents(session: Session, version_id: int) -> Contents:
    """A pinned version. Raises NotFound, and Conflict if its images were deleted for good."""
    version = get_version(session, version_id)
    if not version.is_kept:
        raise Conflict(
            "The images of this version were deleted for good, with the last run that used them."
        )
    dataset = session.get_one(Dataset, version.dataset_id)
    images = list(_pinned_images(session, version))
    return Contents(
        dataset.slug, dataset.name, dataset.trigger_word, images, version.created_at, version.key
    )


def _pinned_images(session: Session, version: DatasetVersion) -> Iterator[ExportedImage]:
    rows = select(Image.sha256, Image.filename).where(Image.dataset_id == version.dataset_id)
    names = dict(session.exec(rows).all())
    for item in version.items:
        # versions that were pinned before names were part of them
        filename = item.get("filename") or names.get(item["sha256"]) or item["sha256"][:16]
        focus = item.get("focus")
        yield ExportedImage(
            filename=filename,
            sha256=item["sha256"],
            clean_sha256=item["clean_sha256"],
            width=item["width"],
            height=item["height"],
            captions=tuple(pinned_captions(item)),
            time=version.created_at,
            repeats=item.get("repeats", 1),
            never_flip=item.get("never_flip", False),
            set_aside=False,
            focus=(focus[0], focus[1]) if focus else None,
        )


def export_chunks(store: BlobStore, contents: Contents) -> Iterator[bytes]:
    """The archive of a dataset in chunks."""
    return archive_chunks(_files(store, contents))


def _files(store: BlobStore, contents: Contents) -> Iterator[StreamedFile]:
    yield _text(
        DATASET_NAME,
        json.dumps(
            {"format": FORMAT, "name": contents.name, "trigger_word": contents.trigger_word},
            ensure_ascii=False,
            indent=2,
        ),
        contents.time,
    )
    lines, left_out = [], []
    stems = export_stems(image.filename for image in contents.images)
    for image, stem in zip(contents.images, stems, strict=True):
        about = image_facts(image, f"{stem}.png")
        try:
            blob = store.open(image.clean_sha256)
        except (BlobNotFound, BlobDamaged) as error:
            left_out.append(_json_line(about | {"reason": error.detail}))
            continue
        with blob:
            yield StreamedFile(
                f"{stem}.png", image.time, _size(blob), iter(partial(blob.read, CHUNK), b"")
            )
        if image.captions[0].caption:
            yield _text(f"{stem}.txt", image.captions[0].caption, image.time)
        lines.append(_json_line(about))
    yield _text(METADATA_NAME, "\n".join(lines), contents.time)
    if left_out:
        yield _text(LEFT_OUT_NAME, "\n".join(left_out), contents.time)


def image_facts(image: ExportedImage, file_name: str) -> dict[str, Any]:
    """The line about an image in `metadata.jsonl`: every line has the same fields.

    Those that training uses have the names by which `brushwork train` reads them.
    """
    return {
        "file_name": file_name,
        "text": image.captions[0].caption,
        "captions": [vars(caption) for caption in image.captions],
        "repeats": image.repeats,
        "never_flip": image.never_flip,
        "set_aside": image.set_aside,
        "focus": list(image.focus) if image.focus else None,
        "name": image.filename,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256,
        "clean_sha256": image.clean_sha256,
    }


def _json_line(values: dict[str, Any]) -> str:
    """JSON on one line for readers that split at every separator of Unicode."""
    line = json.dumps(values, ensure_ascii=False)
    return "".join(SEPARATORS.get(sign, sign) for sign in line)


def _text(name: str, text: str, time: datetime) -> StreamedFile:
    data = f"{text}\n".encode() if text else b""
    return StreamedFile(name, time, len(data), [data], pack=True)


def _size(blob: BinaryIO) -> int:
    size = blob.seek(0, os.SEEK_END)
    blob.seek(0)
    return size


def export_stems(filenames: Iterable[str]) -> list[str]:
    """A name without suffix for each file; they differ in more than case."""
    taken: set[str] = set()
    stems = []
    for filename in filenames:
        stem = wanted = safe_stem(filename)
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def safe_stem(filename: str) -> str:
    """The name of an image without suffix, as a file of any system can have it."""
    stem = clean_filename(filename)
    if stem.lower().endswith(PICTURE_SUFFIXES):
        stem = stem.rpartition(".")[0]
    stem = " ".join(stem.translate(UNSAFE).split()).lstrip(".").rstrip(". ")
    if stem.lower().endswith(PICTURE_SUFFIXES):  # `a.png.txt` would be the caption of `a.png`
        stem = "_".join(stem.rsplit(".", 1))
    stem = stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore").rstrip(". ")
    if stem.partition(".")[0].strip().lower() in RESERVED:
        stem = f"_{stem}"
    return stem or "image"
