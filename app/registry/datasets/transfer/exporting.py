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
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO

from app.registry.datasets.captions import PICTURE_SUFFIXES
from app.registry.datasets.sent_files.metadata_lines import (
    DATASET_NAME,
    LEFT_OUT_NAME,
    METADATA_NAME,
)
from app.registry.datasets.transfer.contents import Contents, ExportedImage
from app.registry.file_names import clean_filename
from app.registry.storage.store import CHUNK, BlobDamaged, BlobNotFound, BlobStore
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
