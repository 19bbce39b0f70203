"""File names for an export: safe on every system, and unique together with their captions."""

from __future__ import annotations

from collections.abc import Iterable

from app.registry.datasets.captions import PICTURE_SUFFIXES
from app.registry.file_names import clean_filename

MAX_STEM_BYTES = 200  # with a number and a suffix below the 255 of most file systems
UNSAFE = str.maketrans(dict.fromkeys('<>:"/\\|?*', "_"))
RESERVED = frozenset(
    {"con", "prn", "aux", "nul"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
)
"""Names of devices on Windows, also with a suffix."""


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
